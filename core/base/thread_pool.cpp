#include "core/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "core/base/check.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

// One epoch counter starts a run and one pending counter ends it. run() returns only after every
// worker has left the function, so nobody of an earlier run can still poll the task counter when
// the next one resets it. Both waits spin for a while and then sleep on a futex
// (std::atomic::wait). The epoch is advanced by a sequentially consistent RMW: the check for
// sleepers inside notify must not pass it.
namespace infer {
namespace {

constexpr int kPausesPerClockRead = 32;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Spins until done() or until `limit` has passed; says whether done() held.
template <class Done>
bool spin_until(const Done& done, std::chrono::microseconds limit) {
  if (done()) return true;
  if (limit.count() <= 0) return false;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      pause_cpu();
      if (done()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// Logical CPUs that the calling thread may use, in the kernel's order; empty when unknown.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) cpus.push_back(i);
  }
#endif
  return cpus;
}

void pin_thread([[maybe_unused]] std::thread& thread, [[maybe_unused]] int cpu) {
#if defined(__linux__)
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // A refusal costs speed, not correctness: the thread keeps the mask it has.
  (void)pthread_setaffinity_np(thread.native_handle(), sizeof(set), &set);
#endif
}

}  // namespace

struct ThreadPool::Impl {
  // Read by all, written by the caller before it advances the epoch.
  RawFn fn = nullptr;
  void* ctx = nullptr;
  bool stop = false;
  int n_threads = 1;
  std::chrono::microseconds spin{0};
  std::vector<std::thread> workers;
  std::atomic<bool> running{false};
  // A cache line each: all three are hammered by different threads.
  alignas(64) std::atomic<int> epoch{0};    ///< runs started, wraps
  alignas(64) std::atomic<int> pending{0};  ///< workers still inside the current run
  alignas(64) std::atomic<int64_t> next{0};

  void start_epoch() {
    epoch.fetch_add(1, std::memory_order_seq_cst);
    epoch.notify_all();
  }

  void worker_loop(int ith, int seen) noexcept {
    for (;;) {
      const auto started = [&] { return epoch.load(std::memory_order_acquire) != seen; };
      if (!spin_until(started, spin)) epoch.wait(seen, std::memory_order_acquire);
      ++seen;
      if (stop) return;
      fn(ctx, ith, n_threads);
      if (pending.fetch_sub(1, std::memory_order_seq_cst) == 1) pending.notify_one();
    }
  }

  void wait_for_workers() noexcept {
    const auto done = [&] { return pending.load(std::memory_order_acquire) == 0; };
    if (spin_until(done, spin)) return;
    for (int left = pending.load(std::memory_order_acquire); left != 0;
         left = pending.load(std::memory_order_acquire)) {
      pending.wait(left, std::memory_order_acquire);
    }
  }
};

ThreadPool::ThreadPool(const Options& options) : impl_(std::make_unique<Impl>()) {
  INFER_CHECK(options.n_threads >= 1, "n_threads = {}", options.n_threads);
  Impl& p = *impl_;
  const std::vector<int> allowed = allowed_cpus();
  const std::vector<int> cpus =
      options.cpus.empty() ? allowed : std::vector<int>(options.cpus.begin(), options.cpus.end());
  const auto n_wanted = static_cast<size_t>(options.n_threads);
  // With more threads than cores a spinning thread only keeps a working one off its core.
  if (allowed.empty() || n_wanted <= allowed.size())
    p.spin = std::chrono::microseconds(options.spin_us);
  p.workers.reserve(n_wanted - 1);
  // Workers read n_threads, stop, fn only after the first epoch, when the team is complete.
  try {
    for (size_t i = 1; i < n_wanted; ++i) {
      p.workers.emplace_back([&p, i] { p.worker_loop(static_cast<int>(i), 0); });
      if (options.pin && n_wanted <= cpus.size()) pin_thread(p.workers.back(), cpus[i]);
    }
  } catch (const std::system_error&) {
    // The system gives no more threads: a smaller team, and n_threads() says so.
  }
  p.n_threads = static_cast<int>(p.workers.size()) + 1;
}

ThreadPool::~ThreadPool() {
  impl_->stop = true;
  impl_->start_epoch();
  for (std::thread& t : impl_->workers) t.join();
}

int ThreadPool::n_threads() const { return impl_->n_threads; }

void ThreadPool::run_raw(RawFn fn, void* ctx) noexcept {
  Impl& p = *impl_;
  const bool nested = p.running.exchange(true, std::memory_order_acquire);
  INFER_CHECK(!nested, "ThreadPool::run called while a run is going on");
  if (p.n_threads > 1) {
    p.fn = fn;
    p.ctx = ctx;
    p.pending.store(p.n_threads - 1, std::memory_order_relaxed);
    p.start_epoch();
  }
  fn(ctx, 0, p.n_threads);
  if (p.n_threads > 1) p.wait_for_workers();
  p.running.store(false, std::memory_order_release);
}

void ThreadPool::reset_tasks() { impl_->next.store(0, std::memory_order_relaxed); }

int64_t ThreadPool::next_task() { return impl_->next.fetch_add(1, std::memory_order_relaxed); }

}  // namespace infer
