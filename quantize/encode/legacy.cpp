#include "core/base/half.h"
#include "core/base/quant_blocks.h"
#include "quantize/encode/rows.h"

/// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 by the published rule: the scale follows from the extreme weights,
/// levels are the nearest. The order of operations is gguf-py's and llama.cpp's, so bytes are
/// theirs.
namespace infer::quantize::INFER_ENCODE_LEVEL {
namespace {

constexpr int kW = 16;
using V = F32<kW>;

struct Pair {
  V lo, hi;  ///< weights 0..15 and 16..31 of a block
};
INFER_INLINE uint16_t half_bits(float x) {
#if defined(__F16C__)
  return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
  return f16_from_f32(x);
#endif
}
INFER_INLINE Pair load_pair(const float* x) { return {V::load(x), V::load(x + kW)}; }

/// The weight farthest from zero, with its sign; the first where two are as far.
INFER_INLINE float extreme_of(const float* x, const Pair& p) {
  const V zero = V::of(0.0f);
  const float top = largest_of(max(p.lo, p.hi));
  const float bottom = largest_of(zero - min(p.lo, p.hi));
  if (top == bottom) {
    for (int i = 0; i < kBlock32; ++i) {
      if (x[i] == top || x[i] == -top) return x[i];
    }
  }
  // No branch: the sign is a coin's throw.
  const float sign = top > bottom ? 1.0f : -1.0f;
  return sign * (top > bottom ? top : bottom);
}

/// The first of equals: zeros have signs, and files keep them.
INFER_INLINE float smallest_of(const float* x, const Pair& p) {
  const float lo = -largest_of(V::of(0.0f) - min(p.lo, p.hi));
  if (lo != 0.0f) return lo;
  int i = 0;
  while (x[i] != 0.0f) ++i;
  return x[i];
}

/// Levels of a block.
struct Levels {
  Bytes16 lo, hi;  ///< of weights 0..15 and 16..31
};

INFER_INLINE Bytes16 nibbles(const Levels& q) { return (q.lo & 15) | (q.hi & 15) << 4; }
INFER_INLINE uint32_t all_fifth_bits(const Levels& q) {
  return fifth_bits(q.lo) | fifth_bits(q.hi) << 16;
}

/// x / d + middle cut off: levels of the types without a minimum. The extreme weight may land one
/// above `top`.
INFER_INLINE uint16_t levels_around(const float* x, float low, Levels* q) {
  const Pair p = load_pair(x);
  const float d = extreme_of(x, p) / -low;
  const V id = V::of(d != 0.0f ? 1.0f / d : 0.0f);
  const V middle = V::of(low + 0.5f);
  const V top = V::of(2.0f * low - 1.0f);
  q->lo = truncated_bytes(min(p.lo * id + middle, top), false);
  q->hi = truncated_bytes(min(p.hi * id + middle, top), false);
  return half_bits(d);
}

struct ScaleMin {
  uint16_t d, m;
};

/// (x - min) / d + 0.5 cut off: levels of the types with a minimum.
INFER_INLINE ScaleMin levels_above(const float* x, float top, Levels* q) {
  const Pair p = load_pair(x);
  const float hi = largest_of(max(p.lo, p.hi));
  const float lo = smallest_of(x, p);
  const float d = (hi - lo) / top;
  const V id = V::of(d != 0.0f ? 1.0f / d : 0.0f);
  const V least = V::of(lo);
  const V half = V::of(0.5f);
  const V most = V::of(top);
  q->lo = truncated_bytes(min((p.lo - least) * id + half, most), false);
  q->hi = truncated_bytes(min((p.hi - least) * id + half, most), false);
  return {half_bits(d), half_bits(lo)};
}

/// The nearest integers, halves away from zero: a little less than one half is added, then cut off.
INFER_INLINE Bytes16 away_from_zero(const V& x) {
  const V half = V::of(0x1.fffffep-2f);
  const V zero = V::of(0.0f);
  return truncated_bytes(x + select(x < zero, zero - half, half), true);
}

/// Parts go straight to their places: a block put together first is read back before it is there.
template <class T>
INFER_INLINE void put(const T& part, size_t offset, std::byte* block) {
  std::memcpy(block + offset, &part, sizeof(part));
}

}  // namespace

void encode_q4_0(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock32, out += sizeof(BlockQ4_0)) {
    Levels q;
    put(levels_around(x + k, 8.0f, &q), offsetof(BlockQ4_0, d), out);
    put(nibbles(q), offsetof(BlockQ4_0, qs), out);
  }
}

void encode_q4_1(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock32, out += sizeof(BlockQ4_1)) {
    Levels q;
    const ScaleMin sm = levels_above(x + k, 15.0f, &q);
    put(sm.d, offsetof(BlockQ4_1, d), out);
    put(sm.m, offsetof(BlockQ4_1, m), out);
    put(nibbles(q), offsetof(BlockQ4_1, qs), out);
  }
}

void encode_q5_0(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock32, out += sizeof(BlockQ5_0)) {
    Levels q;
    put(levels_around(x + k, 16.0f, &q), offsetof(BlockQ5_0, d), out);
    put(nibbles(q), offsetof(BlockQ5_0, qs), out);
    put(all_fifth_bits(q), offsetof(BlockQ5_0, qh), out);
  }
}

void encode_q5_1(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock32, out += sizeof(BlockQ5_1)) {
    Levels q;
    const ScaleMin sm = levels_above(x + k, 31.0f, &q);
    put(sm.d, offsetof(BlockQ5_1, d), out);
    put(sm.m, offsetof(BlockQ5_1, m), out);
    put(nibbles(q), offsetof(BlockQ5_1, qs), out);
    put(all_fifth_bits(q), offsetof(BlockQ5_1, qh), out);
  }
}

void encode_q8_0(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock32, out += sizeof(BlockQ8_0)) {
    const Pair p = load_pair(x + k);
    const float d = largest_of(max(abs(p.lo), abs(p.hi))) / 127.0f;
    const V id = V::of(d != 0.0f ? 1.0f / d : 0.0f);
    put(half_bits(d), offsetof(BlockQ8_0, d), out);
    put(away_from_zero(p.lo * id), offsetof(BlockQ8_0, qs), out);
    put(away_from_zero(p.hi * id), offsetof(BlockQ8_0, qs) + kW, out);
  }
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
