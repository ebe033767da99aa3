#include "tools/common/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <ctime>
#include <utility>

#include "tools/common/args.h"

namespace infer::tools {

InterruptWatcher::InterruptWatcher(std::function<void()> on_signal)
    : InterruptWatcher([fn = std::move(on_signal), once = false](int) mutable {
        if (once) _exit(kExitInterrupted);
        once = true;
        fn();
      }) {}

InterruptWatcher::InterruptWatcher(std::function<void(int signal)> on_each) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::jthread([signals, fn = std::move(on_each)](const std::stop_token& stop) {
    const timespec tick{0, 50'000'000};
    while (!stop.stop_requested()) {
      if (const int signal = sigtimedwait(&signals, nullptr, &tick); signal > 0) fn(signal);
    }
  });
}

InterruptWatcher::~InterruptWatcher() = default;

}  // namespace infer::tools
