#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

namespace infer {

class Team;

/// A fixed team of threads that run one function together. The caller is thread 0. Who waits spins
/// briefly, then sleeps. Threads: run() may be called by one thread at a time, and not from inside
/// a run (checked). Nothing is allocated by run(). Where the system refuses to start a thread the
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

  /// Calls fn(team) on every thread, each with a Team of its own, and returns when all are done. fn
  /// must not throw.
  template <class Fn>
  void run_team(Fn&& fn) {
    using F = std::remove_reference_t<Fn>;
    run_raw([](void* ctx, Team& team) { (*static_cast<F*>(ctx))(team); },
            const_cast<void*>(static_cast<const void*>(&fn)));
  }

  /// The same for a function of (thread_index, n_threads).
  template <class Fn>
  void run(Fn&& fn);

  /// Calls fn(task, thread_index) for each task in [0, n_tasks): a run of one Team::share.
  template <class Fn>
  void for_each(int64_t n_tasks, Fn&& fn);

 private:
  friend class Team;
  using RawFn = void (*)(void* ctx, Team& team);
  void run_raw(RawFn fn, void* ctx) noexcept;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One thread's part of a run: who it is, how it shares work with the others and waits for them.
/// All threads of a run must make the same calls of share() and sync() in the same order.
class Team {
 public:
  int thread() const { return thread_; }
  int n_threads() const { return n_threads_; }

  /// Returns when every thread is here; what they wrote before is visible afterwards.
  void sync() noexcept {
    if (n_threads_ > 1) wait_for_all();
  }

  /// Calls fn(task) once for each task in [0, n_tasks), on whatever thread. A thread begins with a
  /// range of its own, which is the same in every run (caches, NUMA), and then helps those that are
  /// behind. Needs a sync() before a thread reads what others computed; none between two shares.
  template <class Fn>
  void share(int64_t n_tasks, Fn&& fn) {
    ++turn_;
    for (int i = 0; i < n_threads_; ++i) {
      const int owner = thread_ + i < n_threads_ ? thread_ + i : thread_ + i - n_threads_;
      const int64_t begin = n_tasks * owner / n_threads_;
      const int64_t n = n_tasks * (owner + 1) / n_threads_ - begin;
      for (int64_t at = claim(owner, n); at < n; at = claim(owner, n)) fn(begin + at);
    }
  }

  /// Calls fn on one thread; all wait for it.
  template <class Fn>
  void once(Fn&& fn) {
    if (thread_ == 0) fn();
    sync();
  }

 private:
  friend class ThreadPool;
  Team(ThreadPool::Impl& pool, int thread, int n_threads)
      : pool_(pool), thread_(thread), n_threads_(n_threads) {}
  void wait_for_all() noexcept;
  /// The next of the n tasks that `owner` begins with, counted from 0; n when none is left.
  int64_t claim(int owner, int64_t n) noexcept;

  ThreadPool::Impl& pool_;
  const int thread_, n_threads_;
  uint32_t turn_ = 0;  ///< shares of this run so far
};

template <class Fn>
void ThreadPool::run(Fn&& fn) {
  run_team([&](Team& team) { fn(team.thread(), team.n_threads()); });
}

template <class Fn>
void ThreadPool::for_each(int64_t n_tasks, Fn&& fn) {
  if (n_tasks == 1 || n_threads() == 1) {
    for (int64_t i = 0; i < n_tasks; ++i) fn(i, 0);
    return;
  }
  run_team([&](Team& team) { team.share(n_tasks, [&](int64_t i) { fn(i, team.thread()); }); });
}

}  // namespace infer
