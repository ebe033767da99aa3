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
      const int signal = sigtimedwait(&signals, nullptr, &tick);
      if (signal > 0 && !stop.stop_requested()) fn(signal);
    }
  });
}

InterruptWatcher::~InterruptWatcher() {
  thread_.request_stop();
  pthread_kill(thread_.native_handle(), SIGINT);  // to this thread alone, which waits for it
}

}  // namespace infer::tools
