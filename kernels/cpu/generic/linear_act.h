#pragma once

#include <cstddef>
#include <cstdint>

/// Prepared activation rows, one layout for every ISA level (each level fills it with the same
/// bits).
namespace infer::kern {

/// 32 activations in 8 bits. Stands for x[i] = d * q[i], |x - d * q| <= d / 2 up to rounding.
/// A block that holds a NaN or an infinity has d = s = NaN and q = h = 0, so that it turns every
/// output NaN. A block whose largest magnitude is below kActTiny is zero.
struct ActBlock {
  int8_t q[32];  ///< -127..127
  float d;       ///< max |x| / 127
  float s;       ///< d * (sum of q), rounded once: what a minimum is multiplied with
  int16_t h[2];  ///< sums of q[0..15] and q[16..31]
};
static_assert(sizeof(ActBlock) == 44 && alignof(ActBlock) == 4);

inline constexpr float kActTiny = 0x1p-100f;  ///< keeps 127 / max finite

/// Floats in a prepared f32 row: k, filled with zeros up to an odd number of cache lines of 16, so
/// that rows do not lie a power of two apart and compete for the same few lines of a cache.
[[gnu::always_inline]] inline int64_t act_f32_len(int64_t k) { return ((k + 15) / 16 | 1) * 16; }

namespace generic {
int64_t act_bytes_f32(int64_t k);
int64_t act_bytes_q8(int64_t k);
void prepare_f32(const float* x, int64_t k, std::byte* act);
void prepare_q8(const float* x, int64_t k, std::byte* act);
}  // namespace generic

}  // namespace infer::kern
