#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "core/base/checked.h"
#include "core/base/result.h"

namespace infer::cuda {

/// Parts of an allocation begin at multiples of this.
inline constexpr int64_t kPartAlign = 256;

/// Lays parts side by side in an allocation that is made later.
class Parts {
 public:
  /// Where a part of n_bytes begins. Needs: sizes that were checked not to wrap.
  int64_t take(int64_t n_bytes) {
    const int64_t at = n_bytes_;
    n_bytes_ += align_up(n_bytes, kPartAlign);
    return at;
  }
  int64_t n_bytes() const { return n_bytes_; }

 private:
  int64_t n_bytes_ = 0;
};

/// Owns memory of the device that was current when it was allocated.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), n_bytes_(std::exchange(o.n_bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(n_bytes_, o.n_bytes_);
    return *this;
  }

  /// Errors: kOutOfMemory naming `what`, its size and what is free.
  static Result<DeviceBuffer> allocate(int64_t n_bytes, std::string_view what);

  std::byte* data() const { return data_; }
  int64_t n_bytes() const { return n_bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t n_bytes_ = 0;
};

/// Owns pinned memory of the host, which copies read and write while the host does other things.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), n_bytes_(std::exchange(o.n_bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(n_bytes_, o.n_bytes_);
    return *this;
  }

  /// Errors: kIo naming `what`. It is not the device that is full: fewer layers there would not
  /// help.
  static Result<PinnedBuffer> allocate(int64_t n_bytes, std::string_view what);

  std::byte* data() const { return data_; }
  int64_t n_bytes() const { return n_bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  int64_t n_bytes_ = 0;
};

}  // namespace infer::cuda
