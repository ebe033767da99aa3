#pragma once

#include <functional>
#include <thread>

namespace infer::tools {

/// While it lives, Ctrl-C and SIGTERM call `on_signal` on a thread of its own (not in a signal
/// handler); a second one ends the program at once. Make it before any other thread, so that they
/// inherit the blocked signals.
class InterruptWatcher {
 public:
  explicit InterruptWatcher(std::function<void()> on_signal);
  ~InterruptWatcher();

 private:
  std::jthread thread_;
};

}  // namespace infer::tools
