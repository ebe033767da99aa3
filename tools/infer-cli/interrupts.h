#pragma once

#include <functional>
#include <mutex>
#include <utility>

#include "tools/common/args.h"
#include "tools/common/interrupt.h"

namespace infer::tools {

/// What Ctrl-C and SIGTERM do just now. Until a handler is set they end the program at once.
class Interrupts {
 public:
  Interrupts() : watcher_([this](int signal) { call(signal); }) {}
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  using Handler = std::function<void(int signal)>;
  /// `handler` runs on a thread of its own, one call at a time. Empty: as at the beginning. A call
  /// that is under way has ended when this returns.
  void set(Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
  }

 private:
  void call(int signal);

  std::mutex mutex_;
  Handler handler_;
  InterruptWatcher watcher_;  ///< last: its thread uses the others
};

/// Sets a handler for the time it lives.
class InterruptScope {
 public:
  InterruptScope(Interrupts& interrupts, Interrupts::Handler handler) : interrupts_(interrupts) {
    interrupts_.set(std::move(handler));
  }
  ~InterruptScope() { interrupts_.set({}); }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  Interrupts& interrupts_;
};

}  // namespace infer::tools
