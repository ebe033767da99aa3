#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/base/result.h"

namespace infer::cpu {

/// Owns page-aligned host memory that reads as zeros and is committed by the system when it is
/// touched.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer();
  Buffer(Buffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), n_bytes_(std::exchange(o.n_bytes_, 0)) {}
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(n_bytes_, o.n_bytes_);
    return *this;
  }

  /// Errors: kOutOfMemory naming `what`.
  static Result<Buffer> allocate(int64_t n_bytes, const char* what);

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

}  // namespace infer::cpu
