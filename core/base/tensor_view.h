#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

namespace infer {

/// A read-only tensor as a file holds it. `ne[0]` is the contiguous dimension (k of a weight [n,
/// k]), as GGUF orders it.
struct TensorView {
  DType type = DType::kF32;
  std::array<int64_t, 4> ne{1, 1, 1, 1};
  const std::byte* data = nullptr;  ///< at least 2-byte aligned; blocks of `type`, rows contiguous
  int64_t n_bytes = 0;

  int64_t n_elem() const { return ne[0] * ne[1] * ne[2] * ne[3]; }
};

}  // namespace infer
