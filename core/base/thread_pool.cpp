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

// One epoch counter starts a run, one pending counter ends it, and a barrier lies between the steps
// of a run. run() returns only after every worker has left the function, so nobody of an earlier
// run is still at the barrier or at the tasks when the next one begins. All waits spin for a while
// and then sleep on a futex (std::atomic::wait). What they wait for is changed by sequentially
// consistent RMWs: the check for sleepers inside notify must not pass it.
namespace infer {
namespace {

constexpr int kPausesPerClockRead = 32;
/// How often a thread that may not spin lets others run before it sleeps: those it waits for are
/// likely next on its core, and a switch costs less than a wake-up.
constexpr int kYields = 64;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Returns when `word` is not `old` any more; spins for `limit`, then sleeps.
void wait_while(const std::atomic<int>& word, int old, std::chrono::microseconds limit) {
  const auto changes_soon = [&] {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (word.load(std::memory_order_acquire) != old) return true;
      pause_cpu();
    }
    return false;
  };
  if (limit.count() > 0) {
    if (changes_soon()) return;  // most waits end here, before a clock is read
    const auto end = std::chrono::steady_clock::now() + limit;
    do {
      if (changes_soon()) return;
    } while (std::chrono::steady_clock::now() < end);
  }
  for (int i = 0; limit.count() <= 0 && i < kYields; ++i) {
    std::this_thread::yield();
    if (word.load(std::memory_order_acquire) != old) return;
  }
  word.wait(old, std::memory_order_acquire);
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
  // A cache line each: they are hammered by different threads.
  alignas(64) std::atomic<int> epoch{0};    ///< runs started, wraps
  alignas(64) std::atomic<int> pending{0};  ///< workers still inside the current run
  alignas(64) std::atomic<int> arrived{0};  ///< threads that wait at the barrier
  alignas(64) std::atomic<int> passed{0};   ///< how often the barrier opened, wraps
  /// Tasks taken of one thread's range: the share (Team::turn_) in the upper half, their number in
  /// the lower.
  struct alignas(64) Claims {
    std::atomic<uint64_t> word{0};
  };
  std::vector<Claims> claims;  ///< [n_threads]

  void start_epoch() {
    epoch.fetch_add(1, std::memory_order_seq_cst);
    epoch.notify_all();
  }

  void call(int thread) noexcept {
    Team team(*this, thread, n_threads);
    fn(ctx, team);
  }

  void worker_loop(int thread, int seen) noexcept {
    for (;;) {
      wait_while(epoch, seen, spin);
      ++seen;
      if (stop) return;
      call(thread);
      if (pending.fetch_sub(1, std::memory_order_seq_cst) == 1) pending.notify_one();
    }
  }

  void wait_for_workers() noexcept {
    for (int left = pending.load(std::memory_order_acquire); left != 0;
         left = pending.load(std::memory_order_acquire)) {
      wait_while(pending, left, spin);
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
  p.claims = std::vector<Impl::Claims>(static_cast<size_t>(p.n_threads));
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
  p.fn = fn;
  p.ctx = ctx;
  for (Impl::Claims& c : p.claims) c.word.store(0, std::memory_order_relaxed);
  if (p.n_threads > 1) {
    p.pending.store(p.n_threads - 1, std::memory_order_relaxed);
    p.start_epoch();
  }
  p.call(0);
  if (p.n_threads > 1) p.wait_for_workers();
  p.running.store(false, std::memory_order_release);
}

void Team::wait_for_all() noexcept {
  ThreadPool::Impl& p = pool_;
  const int passed = p.passed.load(std::memory_order_relaxed);
  if (p.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 < n_threads_) {
    wait_while(p.passed, passed, p.spin);
    return;
  }
  p.arrived.store(0, std::memory_order_relaxed);
  p.passed.fetch_add(1, std::memory_order_seq_cst);
  p.passed.notify_all();
}

int64_t Team::claim(int owner, int64_t n) noexcept {
  std::atomic<uint64_t>& word = pool_.claims[static_cast<size_t>(owner)].word;
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    const auto turn = static_cast<uint32_t>(seen >> 32);
    // Who is at a later share has found every range of this one empty.
    if (turn > turn_) return n;
    // An earlier share's count: nobody has come to this range yet.
    const int64_t at = turn == turn_ ? static_cast<uint32_t>(seen) : 0;
    if (at >= n) return n;
    const uint64_t taken = uint64_t{turn_} << 32 | static_cast<uint64_t>(at + 1);
    if (word.compare_exchange_weak(seen, taken, std::memory_order_relaxed)) return at;
  }
}

}  // namespace infer
