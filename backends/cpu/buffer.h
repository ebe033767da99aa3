#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/base/result.h"

namespace infer::cpu {

/// Of a huge page, where there are any.
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

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

  /// With `huge`, if it is large enough, it begins at a huge page's border and the system is asked
  /// for huge pages. Before the first touch, that is: clearing 2 MiB at once is cheaper than 512
  /// page faults, and merging small pages later takes the system minutes. Errors: kOutOfMemory
  /// naming `what`.
  static Result<Buffer> allocate(int64_t n_bytes, const char* what, bool huge = false);
  /// Commits the pages inside a range that is about to be written, which is faster at once than
  /// page by page; where the system cannot, nothing happens.
  static void commit(std::byte* begin, int64_t n_bytes);
  /// Asks the system to read a range of a mapped file that will be needed soon; does not wait.
  static void read_ahead(const std::byte* begin, int64_t n_bytes);

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
  bool is_huge_ = false;  ///< huge pages were asked for, and the system knows them
};

}  // namespace infer::cpu
