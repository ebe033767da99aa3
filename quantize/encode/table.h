#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

/// What an ISA level of the encoders offers; free of everything that level may not compile.
namespace infer::quantize {

/// x [n_k] f32 (finite) -> out, row_bytes(type, n_k) bytes, any alignment.
/// importance [n_k] >= 0, or nullptr: how much an error in each column counts (the mean square of
/// its activations). n_k is a multiple of the type's block length. Never allocates, never throws.
using EncodeRow = void (*)(const float* x, const float* importance, int64_t n_k, std::byte* out);

struct EncodeTable {
  const char* isa = "";  ///< "generic", "avx2", "avx512"
  /// What llama.cpp's users expect of the type: the reference's bytes for F32, F16, BF16, Q8_0,
  /// Q4_0, Q4_1, Q5_0, Q5_1 (which do not look at `importance`), our search for K-quants and
  /// IQ4_NL. nullptr: this type cannot be written.
  EncodeRow plain[kDTypeCount] = {};
  /// --best: the legacy types search their scales too. nullptr only where plain is.
  EncodeRow best[kDTypeCount] = {};
  /// Whether all of x [n] is finite.
  bool (*all_finite)(const float* x, int64_t n) = nullptr;
};

}  // namespace infer::quantize
