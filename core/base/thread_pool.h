#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

namespace infer {

/// A fixed team of threads that run one function together. The caller is thread 0. Workers spin
/// briefly, then sleep. Threads: run() may be called by one thread at a time, and not from inside a
/// run (checked). Nothing is allocated by run(). Where the system refuses to start a thread the
/// team is smaller than asked for: n_threads() says.
class ThreadPool {
 public:
  struct Options {
    int n_threads = 1;  ///< >= 1, the caller included
    /// Bind worker i to cpus[i], if there are that many. The caller stays free: threads that it
    /// starts later would inherit its mask.
    bool pin = false;
    int spin_us = 50;  ///< how long a waiting thread spins before it sleeps; 0 if the cores are
                       ///< oversubscribed
    std::span<const int> cpus =
        {};  ///< logical CPUs to pin to; empty: the allowed ones in the kernel's order
  };
  explicit ThreadPool(const Options& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const;

  /// Calls fn(thread_index, n_threads) on every thread and returns when all are done. fn must not
  /// throw.
  template <class Fn>
  void run(Fn&& fn) {
    using F = std::remove_reference_t<Fn>;
    run_raw([](void* ctx, int ith, int nth) { (*static_cast<F*>(ctx))(ith, nth); },
            const_cast<void*>(static_cast<const void*>(&fn)));
  }

  /// Calls fn(task, thread_index) for each task in [0, n_tasks); tasks are handed out dynamically.
  template <class Fn>
  void for_each(int64_t n_tasks, Fn&& fn) {
    if (n_tasks == 1 || n_threads() == 1) {
      for (int64_t i = 0; i < n_tasks; ++i) fn(i, 0);
      return;
    }
    reset_tasks();
    run([&](int ith, int) {
      for (int64_t i = next_task(); i < n_tasks; i = next_task()) fn(i, ith);
    });
  }

 private:
  using RawFn = void (*)(void* ctx, int ith, int nth);
  void run_raw(RawFn fn, void* ctx) noexcept;
  void reset_tasks();
  int64_t next_task();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infer
