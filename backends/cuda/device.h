#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <utility>

#include "backends/cuda/error.h"

namespace infer::cuda {

/// What the backend knows of a device.
struct Device {
  int index = 0;
  std::string description;  ///< "NVIDIA GeForce RTX 4090, sm_89, 23.6 GiB"
  int architecture = 0;     ///< 75, 80, 86, ...
  int n_multiprocessor = 0;
  int64_t memory_bytes = 0;
  bool has_bf16() const { return architecture >= 80; }

  /// Makes it the calling thread's device.
  Result<void> use() const { return check(cudaSetDevice(index), "choosing a device"); }
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
  static Result<Event> create() {
    Event e;
    INFER_TRY(
        check(cudaEventCreateWithFlags(&e.handle_, cudaEventDisableTiming), "creating an event"));
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
