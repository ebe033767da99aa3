#include "tools/infer-cli/interrupts.h"

#include <unistd.h>

#include <cstdio>

namespace infer::tools {

void Interrupts::call(int signal) {
  const std::lock_guard lock(mutex_);
  if (!handler_) {
    if (isatty(STDERR_FILENO) != 0) std::fputc('\n', stderr);  // the terminal shows ^C
    _exit(kExitInterrupted);
  }
  handler_(signal);
}

}  // namespace infer::tools
