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
      : mapping_(std::exchange(o.mapping_, nullptr)),
        mapped_bytes_(std::exchange(o.mapped_bytes_, 0)),
        data_(std::exchange(o.data_, nullptr)),
        n_bytes_(std::exchange(o.n_bytes_, 0)),
        is_huge_(o.is_huge_) {}
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(mapping_, o.mapping_);
    std::swap(mapped_bytes_, o.mapped_bytes_);
    std::swap(data_, o.data_);
    std::swap(n_bytes_, o.n_bytes_);
    std::swap(is_huge_, o.is_huge_);
    return *this;
  }

  /// With `aligned` it begins at a huge page's border, if it is large enough for one. Errors:
  /// kOutOfMemory naming `what`.
  static Result<Buffer> allocate(int64_t n_bytes, const char* what, bool aligned = false);
  /// Commits the pages inside a range that is about to be written, which is faster at once than
  /// page by page; where the system cannot, nothing happens.
  static void commit(std::byte* begin, int64_t n_bytes);
  /// Lets the system back it with huge pages (MADV_HUGEPAGE) if it was aligned for them: what is
  /// touched from now on at once, what was touched before by and by, in the background.
  void advise_huge();

  std::byte* data() const { return data_; }
  int64_t n_bytes() const { return n_bytes_; }
  bool is_huge() const { return is_huge_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void* mapping_ = nullptr;  ///< `data_` lies in it, at a huge page's border where that is asked
  int64_t mapped_bytes_ = 0;
  std::byte* data_ = nullptr;
  int64_t n_bytes_ = 0;
  bool is_huge_ = false;  ///< advise_huge() had an effect
};

}  // namespace infer::cpu
