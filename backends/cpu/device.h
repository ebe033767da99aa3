#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "core/base/thread_pool.h"
#include "core/runtime/backend.h"
#include "kernels/cpu/table.h"

namespace infer::cpu {

/// Work for the device's driver thread: a function and its argument, no allocation.
struct Job {
  Result<void> (*fn)(void* object, const runtime::Step& step, const runtime::StepIo& io) = nullptr;
  void* object = nullptr;
  const runtime::Step* step = nullptr;
  runtime::StepIo io;
};

/// How weights and pools are kept in memory.
struct MemoryPolicy {
  bool huge_pages = true;
  bool lock = false;  ///< weights, also those in the file, and pools stay in RAM
};

/// What all executables of one CPU backend share: kernels, threads, and the driver thread that runs
/// their steps in order.
class Device {
 public:
  /// Pins the workers to `cpus` unless that is empty.
  Device(kern::CpuKernels kernels, int n_threads, int n_threads_batch, std::span<const int> cpus,
         const MemoryPolicy& memory = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const kern::CpuKernels& kernels() const { return kernels_; }
  const MemoryPolicy& memory() const { return memory_; }
  /// The team for a step of n_row rows. Only for the driver thread (and for compile, before any
  /// step).
  ThreadPool& pool(int64_t n_row) { return n_row > 1 && batch_pool_ ? *batch_pool_ : *pool_; }
  int max_threads() const;

  runtime::Ticket enqueue(const Job& job);
  Result<void> wait(runtime::Ticket ticket);

 private:
  void drive();

  // Every executable may have two steps in flight, and a model a stage on this device for each
  // half-layer.
  static constexpr size_t kQueue = 256;
  kern::CpuKernels kernels_;
  MemoryPolicy memory_;
  std::unique_ptr<ThreadPool> pool_, batch_pool_;
  std::mutex mutex_;
  std::condition_variable work_, done_;
  struct Slot {
    Job job;
    std::optional<Error> error;
  };
  std::array<Slot, kQueue> slots_;
  uint64_t n_queued_ = 0, n_done_ = 0;
  bool stop_ = false;
  std::thread driver_;
};

}  // namespace infer::cpu
