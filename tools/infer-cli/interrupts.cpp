#include "tools/infer-cli/interrupts.h"

#include <unistd.h>

namespace infer::tools {

void Interrupts::call(int signal) {
  const std::lock_guard lock(mutex_);
  if (!handler_) _exit(kExitInterrupted);
  handler_(signal);
}

}  // namespace infer::tools
