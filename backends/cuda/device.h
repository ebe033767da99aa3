#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "backends/cuda/error.h"

namespace infer::cuda {

/// What the backend knows of a device.
struct Device {
  int index = 0;
  std::string description;  ///< "NVIDIA GeForce RTX 4090, sm_89, 23.6 GiB"
  /// 75, 80, 86, ...: of the device, or what its code was compiled for where that is less. Kernels
  /// have the forms of the latter.
  int architecture = 0;
  int n_multiprocessor = 0;
  int64_t memory_bytes = 0;
  bool has_bf16() const { return architecture >= 80; }

  /// Makes it the calling thread's device.
  Result<void> use() const {
    const cudaError_t error = cudaSetDevice(index);
    if (error == cudaSuccess) return {};
    return check(error, fmt::format("choosing cuda:{}", index));
  }
};

/// What the backends of one list say once between them.
struct SaidOnce {
  std::atomic<bool> no_cublas = false;
};

/// A stream that does not wait for the legacy one.
class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (handle_ != nullptr) static_cast<void>(cudaStreamDestroy(handle_));
  }
  Stream(Stream&& o) noexcept : handle_(std::exchange(o.handle_, nullptr)) {}
  Stream& operator=(Stream&& o) noexcept {
    std::swap(handle_, o.handle_);
    return *this;
  }
  static Result<Stream> create() {
    Stream s;
    INFER_TRY(
        check(cudaStreamCreateWithFlags(&s.handle_, cudaStreamNonBlocking), "creating a stream"));
    return s;
  }
  cudaStream_t get() const { return handle_; }
  Result<void> wait() const {
    return check(cudaStreamSynchronize(handle_), "waiting for the device");
  }

 private:
  cudaStream_t handle_ = nullptr;
};

class Event {
 public:
  Event() = default;
  ~Event() {
    if (handle_ != nullptr) static_cast<void>(cudaEventDestroy(handle_));
  }
  Event(Event&& o) noexcept : handle_(std::exchange(o.handle_, nullptr)) {}
  Event& operator=(Event&& o) noexcept {
    std::swap(handle_, o.handle_);
    return *this;
  }
  /// Who waits for it sleeps, or spins: that keeps a core busy, but wakes up at once.
  enum class Wait : uint8_t { kSleep, kSpin };
  static Result<Event> create(Wait how) {
    Event e;
    const unsigned flags =
        cudaEventDisableTiming | (how == Wait::kSleep ? cudaEventBlockingSync : 0u);
    INFER_TRY(check(cudaEventCreateWithFlags(&e.handle_, flags), "creating an event"));
    return e;
  }
  Result<void> record(const Stream& stream) const {
    return check(cudaEventRecord(handle_, stream.get()), "recording an event");
  }
  Result<void> wait() const {
    return check(cudaEventSynchronize(handle_), "waiting for the device");
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace infer::cuda
