#pragma once

#include "core/base/half.h"
#include "quantize/encode/lanes.h"

/// What the searches share: blocks of weights W at a time, block j in lane j. An error counts w
/// times its square.
namespace infer::quantize::INFER_ENCODE_LEVEL {

/// W blocks of N weights.
template <int N, int W>
struct Blocks {
  F32<W> x[N];
  F32<W> w[N];
  F32<W> sum_w, sum_x, sum_xx;  ///< of w, w x and w x x
};

/// |x| beyond this is cut off: no type's scale can hold it, and its square would overflow.
inline constexpr float kLargest = 1e12f;

/// Loads W blocks of N weights that follow each other. Without importance an error counts
/// rms(block) * flat + |x|, as llama.cpp's reference counts it with flat = 1; a little more lowers
/// the plain error as well. With importance it counts importance * sqrt(s2 + x^2), s2 being the
/// mean of x^2 over the G blocks of a super-block.
template <int G, int N, int W>
INFER_INLINE void load_blocks(const float* x, const float* importance, float flat,
                              Blocks<N, W>* b) {
  alignas(64) float column[N * W];
  transpose<W, N>(x, column);
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> largest = F32<W>::of(kLargest);
  F32<W> square = zero;
  for (int i = 0; i < N; ++i) {
    b->x[i] = clamp(F32<W>::load(column + i * W), zero - largest, largest);
    square = square + b->x[i] * b->x[i];
  }
  square = square * F32<W>::of(1.0f / N);
  // A weight is never zero: something must be chosen where nothing counts.
  const F32<W> least = F32<W>::of(1e-30f);
  if (importance == nullptr) {
    const F32<W> base = sqrt(square) * F32<W>::of(flat) + least;
    for (int i = 0; i < N; ++i) b->w[i] = base + abs(b->x[i]);
  } else {
    transpose<W, N>(importance, column);
    const F32<W> sigma2 = group_sum<G>(square) * F32<W>::of(1.0f / G);
    const F32<W> little = F32<W>::of(1e-20f);
    for (int i = 0; i < N; ++i) {
      b->w[i] = (F32<W>::load(column + i * W) + little) * sqrt(sigma2 + b->x[i] * b->x[i]) + least;
    }
  }
  b->sum_w = b->sum_x = b->sum_xx = zero;
  for (int i = 0; i < N; ++i) {
    b->sum_w = b->sum_w + b->w[i];
    b->sum_x = b->sum_x + b->w[i] * b->x[i];
    b->sum_xx = b->sum_xx + b->w[i] * b->x[i] * b->x[i];
  }
}

/// Sums over a block for the levels q chosen: of w q q, w q and w q x.
template <int W>
struct LevelSums {
  F32<W> qq, q, qx;
};

inline constexpr float kMaxHalf = 65504.0f;
inline constexpr float kMinHalf = 0x1p-24f;

/// x as f16 holds it, but not 0 or infinite if x is not: a block of tiny weights is not lost whole.
INFER_INLINE float nearest_half(float x) {
  const float a = __builtin_fabsf(x);
  if (!(a > 0.0f)) return 0.0f;
  const float held = f32_from_f16(f16_from_f32(a < kMinHalf   ? kMinHalf
                                               : a > kMaxHalf ? kMaxHalf
                                                              : a));
  return x < 0.0f ? -held : held;
}

/// The better of two fits, lane by lane.
template <int W>
INFER_INLINE void keep(const I32<W>& better, const F32<W>& value, F32<W>* best) {
  *best = select(better, value, *best);
}

/// Levels as bytes in the order of the weights; `base` is added to each. They end up in [0, 255].
template <int N, int W>
INFER_INLINE void store_levels(const F32<W> (&q)[N], float base, uint8_t* out) {
  alignas(64) float column[N * W];
  alignas(64) float row[N * W];
  const F32<W> add = F32<W>::of(base);
  for (int i = 0; i < N; ++i) (q[i] + add).store(column + i * W);
  transpose<N, W>(column, row);
  for (int i = 0; i < N * W; i += 16) {
    const Bytes16 bytes = truncated_bytes(F32<16>::load(row + i), false);
    std::memcpy(out + i, &bytes, sizeof(bytes));
  }
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
