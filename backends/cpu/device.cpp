#include "backends/cpu/device.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace infer::cpu {

Device::Device(kern::CpuKernels kernels, int n_threads, int n_threads_batch,
               std::span<const int> cpus, int64_t l2_bytes, const MemoryPolicy& memory)
    : kernels_(kernels), memory_(memory) {
  if (l2_bytes > 0) l2_bytes_ = l2_bytes;
  const bool pin = !cpus.empty();
  pool_ = std::make_unique<ThreadPool>(
      ThreadPool::Options{.n_threads = n_threads, .pin = pin, .cpus = cpus});
  if (n_threads_batch != n_threads) {
    batch_pool_ = std::make_unique<ThreadPool>(
        ThreadPool::Options{.n_threads = n_threads_batch, .pin = pin, .cpus = cpus});
  }
  driver_ = std::thread([this] { drive(); });
}

Device::~Device() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  driver_.join();
}

int Device::max_threads() const {
  return std::max(pool_->n_threads(), batch_pool_ ? batch_pool_->n_threads() : 1);
}

runtime::Ticket Device::enqueue(const Job& job) {
  uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    INFER_CHECK(n_queued_ - n_done_ < kQueue, "{} steps in flight", n_queued_ - n_done_);
    ticket = n_queued_++;
    slots_[ticket % kQueue] = {job, std::nullopt};
  }
  work_.notify_one();
  return ticket;
}

Result<void> Device::wait(runtime::Ticket ticket) {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return n_done_ > ticket; });
  Slot& slot = slots_[ticket % kQueue];
  if (slot.error) return *std::exchange(slot.error, std::nullopt);
  return {};
}

Result<void> Device::run(const Job& job) {
  bool alone = false;
  {
    const std::lock_guard lock(mutex_);
    alone = n_done_ == n_queued_;
    if (alone) {
      ++n_queued_;
      caller_runs_ = true;
    }
  }
  if (!alone) return wait(enqueue(job));
  Result<void> result = job.fn(job.object, *job.step, job.io);
  {
    const std::lock_guard lock(mutex_);
    ++n_done_;
    caller_runs_ = false;
  }
  work_.notify_one();  // steps of other executables may have come meanwhile
  return result;
}

void Device::drive() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stop_ || (n_done_ < n_queued_ && !caller_runs_); });
    if (n_done_ == n_queued_) return;  // stop, and nothing is left
    Slot& slot = slots_[n_done_ % kQueue];
    lock.unlock();
    Result<void> result = slot.job.fn(slot.job.object, *slot.job.step, slot.job.io);
    lock.lock();
    if (!result.ok()) slot.error = std::move(result).error();
    ++n_done_;
    done_.notify_all();
  }
}

}  // namespace infer::cpu
