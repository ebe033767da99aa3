#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace infer {

/// A row-major matrix whose rows may be padded; does not own.
template <class T>
struct MatView {
  T* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_stride = 0;  ///< >= n_cols, in elements

  T* ptr(int64_t r) const { return data + r * row_stride; }
  std::span<T> row(int64_t r) const { return {data + r * row_stride, static_cast<size_t>(n_cols)}; }
};

}  // namespace infer
