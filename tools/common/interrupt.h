#pragma once

#include <functional>
#include <thread>

namespace infer::tools {

/// While it lives, Ctrl-C and SIGTERM reach a function on a thread of its own (not in a signal
/// handler). Make it before any other thread, so that they inherit the blocked signals.
class InterruptWatcher {
 public:
  /// The first signal calls `on_signal`, a second one ends the program at once.
  explicit InterruptWatcher(std::function<void()> on_signal);
  /// Every signal calls `on_each` with its number; ending the program is up to it.
  explicit InterruptWatcher(std::function<void(int signal)> on_each);
  ~InterruptWatcher();

 private:
  std::jthread thread_;
};

}  // namespace infer::tools
