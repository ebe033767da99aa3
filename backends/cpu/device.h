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

/// What all executables of one CPU backend share: kernels, threads, and the queue of their steps.
/// A step that is alone runs on the thread that asks for it: handing it over and back costs two
/// wake-ups. Steps that are waited for later run on the driver thread.
class Device {
 public:
  /// Pins the workers to `cpus` unless that is empty. l2_bytes: of a core, 0 where unknown.
  Device(kern::CpuKernels kernels, int n_threads, int n_threads_batch, std::span<const int> cpus,
         int64_t l2_bytes, const MemoryPolicy& memory = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const kern::CpuKernels& kernels() const { return kernels_; }
  const MemoryPolicy& memory() const { return memory_; }
  int64_t l2_bytes() const { return l2_bytes_; }
  /// The team for a step of n_row rows. Only for the thread that runs a step (and for compile,
  /// before any step).
  ThreadPool& pool(int64_t n_row) { return n_row > 1 && batch_pool_ ? *batch_pool_ : *pool_; }
  int max_threads() const;

  runtime::Ticket enqueue(const Job& job);
  Result<void> wait(runtime::Ticket ticket);
  /// Both in one.
  Result<void> run(const Job& job);

 private:
  void drive();

  // Every executable may have two steps in flight, and a model a stage on this device for each
  // half-layer.
  static constexpr size_t kQueue = 256;
  kern::CpuKernels kernels_;
  int64_t l2_bytes_ = kern::LinearArgs{}.l2_bytes;
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
  bool caller_runs_ = false;  ///< the step that comes next, on its own thread
  bool stop_ = false;
  std::thread driver_;
};

}  // namespace infer::cpu
