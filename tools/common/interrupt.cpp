#include "tools/common/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <ctime>

#include "tools/common/args.h"

namespace infer::tools {

InterruptWatcher::InterruptWatcher(std::function<void()> on_signal) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::jthread([signals, fn = std::move(on_signal)](const std::stop_token& stop) {
    const timespec tick{0, 50'000'000};
    bool once = false;
    while (!stop.stop_requested()) {
      if (sigtimedwait(&signals, nullptr, &tick) < 0) continue;
      if (once) _exit(kExitInterrupted);
      once = true;
      fn();
    }
  });
}

InterruptWatcher::~InterruptWatcher() = default;

}  // namespace infer::tools
