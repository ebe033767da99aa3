#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/encode/lanes.h"

/// The row encoders of one level (quantize/encoder.h: EncodeRow), one file a family.
namespace infer::quantize::INFER_ENCODE_LEVEL {

#define INFER_ENCODE_ROW(name) \
  void name(const float* x, const float* importance, int64_t n_k, std::byte* out)

// floats.cpp
INFER_ENCODE_ROW(encode_f32);
INFER_ENCODE_ROW(encode_f16);
INFER_ENCODE_ROW(encode_bf16);
bool all_finite(const float* x, int64_t n);
// legacy.cpp
INFER_ENCODE_ROW(encode_q4_0);
INFER_ENCODE_ROW(encode_q4_1);
INFER_ENCODE_ROW(encode_q5_0);
INFER_ENCODE_ROW(encode_q5_1);
INFER_ENCODE_ROW(encode_q8_0);
// legacy_best.cpp
INFER_ENCODE_ROW(best_q4_0);
INFER_ENCODE_ROW(best_q4_1);
INFER_ENCODE_ROW(best_q5_0);
INFER_ENCODE_ROW(best_q5_1);
INFER_ENCODE_ROW(best_q8_0);
// k_affine.cpp
INFER_ENCODE_ROW(encode_q2_k);
INFER_ENCODE_ROW(encode_q4_k);
INFER_ENCODE_ROW(encode_q5_k);
// k_symmetric.cpp
INFER_ENCODE_ROW(encode_q3_k);
INFER_ENCODE_ROW(encode_q6_k);
// iq4_nl.cpp
INFER_ENCODE_ROW(encode_iq4_nl);

#undef INFER_ENCODE_ROW

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
