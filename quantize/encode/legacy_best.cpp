#include "core/base/quant_blocks.h"
#include "quantize/encode/affine.h"
#include "quantize/encode/rows.h"
#include "quantize/encode/symmetric.h"

/// --best: the blocks of the legacy types, with scales that are looked for.
namespace infer::quantize::INFER_ENCODE_LEVEL {
namespace {

constexpr int kN = kBlock32;
constexpr int kW = 16;  ///< blocks at a time
constexpr SymmetricSearch kSymmetric{.flat = 10.0f,
                                     .grid_from = -1.5f,
                                     .grid_step = 0.3f,
                                     .n_grid = 24,
                                     .n_refine = 2,
                                     .radius = 0,
                                     .n_again = 0};
constexpr AffineSearch kAffine{.flat = 1.5f,
                               .grid_from = -2.0f,
                               .grid_step = 0.2f,
                               .n_grid = 16,
                               .n_refine = 3,
                               .scale_radius = 0,
                               .min_radius = 0,
                               .n_again = 0};

/// Calls fn(x, importance, n) for kW blocks at a time; fewer at the end are made up with zeros.
template <class Fn>
INFER_INLINE void for_blocks(const float* x, const float* importance, int64_t n_k, Fn&& fn) {
  constexpr int64_t kStep = kN * kW;
  for (int64_t k = 0; k < n_k; k += kStep) {
    if (n_k - k >= kStep) {
      fn(x + k, importance == nullptr ? nullptr : importance + k, kW);
      continue;
    }
    const auto n_bytes = static_cast<size_t>(n_k - k) * sizeof(float);
    alignas(64) float rest[kStep] = {};
    alignas(64) float weight[kStep] = {};
    std::memcpy(rest, x + k, n_bytes);
    if (importance != nullptr) std::memcpy(weight, importance + k, n_bytes);
    fn(rest, importance == nullptr ? nullptr : weight, static_cast<int>((n_k - k) / kN));
  }
}

INFER_INLINE void pack_nibbles(const uint8_t* q, uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}
INFER_INLINE void pack_fifth_bits(const uint8_t* q, uint8_t* out) {
  uint32_t high = 0;
  for (int i = 0; i < kN; ++i) high |= static_cast<uint32_t>(q[i] >> 4) << i;
  std::memcpy(out, &high, sizeof(high));
}
INFER_INLINE void pack(const uint8_t* q, BlockQ4_0* out) { pack_nibbles(q, out->qs); }
INFER_INLINE void pack(const uint8_t* q, BlockQ4_1* out) { pack_nibbles(q, out->qs); }
INFER_INLINE void pack(const uint8_t* q, BlockQ5_0* out) {
  pack_nibbles(q, out->qs);
  pack_fifth_bits(q, out->qh);
}
INFER_INLINE void pack(const uint8_t* q, BlockQ5_1* out) {
  pack_nibbles(q, out->qs);
  pack_fifth_bits(q, out->qh);
}
/// Levels of Q8_0 come as q + 128.
INFER_INLINE void pack(const uint8_t* q, BlockQ8_0* out) {
  for (int i = 0; i < kN; ++i) out->qs[i] = static_cast<int8_t>(static_cast<int>(q[i]) - 128);
}

template <class Block>
INFER_INLINE void best_symmetric(const float* x, const float* importance, int64_t n_k, float low,
                                 std::byte* out) {
  for_blocks(x, importance, n_k, [&](const float* from, const float* weight, int n) {
    Blocks<kN, kW> b;
    load_blocks<1>(from, weight, kSymmetric.flat, &b);
    const F32<kW> s = per_lane(symmetric_search(b, low, kSymmetric), nearest_half);
    F32<kW> levels[kN];
    symmetric_quantise(b, s, low, levels);
    uint8_t q[kN * kW];
    store_levels(levels, low, q);
    alignas(64) float d[kW];
    s.store(d);
    for (int j = 0; j < n; ++j) {
      Block block;
      block.d = f16_from_f32(d[j]);
      pack(q + kN * j, &block);
      std::memcpy(out, &block, sizeof(block));
      out += sizeof(block);
    }
  });
}

template <class Block>
INFER_INLINE void best_affine(const float* x, const float* importance, int64_t n_k, float top,
                              std::byte* out) {
  for_blocks(x, importance, n_k, [&](const float* from, const float* weight, int n) {
    Blocks<kN, kW> b;
    load_blocks<1>(from, weight, kAffine.flat, &b);
    Affine<kW> fit = affine_search(b, top, true, kAffine);
    fit.s = per_lane(fit.s, nearest_half);
    fit.m = per_lane(fit.m, nearest_half);
    F32<kW> levels[kN];
    affine_quantise(b, fit, top, levels);
    uint8_t q[kN * kW];
    store_levels(levels, 0.0f, q);
    alignas(64) float d[kW], m[kW];
    fit.s.store(d);
    fit.m.store(m);
    for (int j = 0; j < n; ++j) {
      Block block;
      block.d = f16_from_f32(d[j]);
      block.m = f16_from_f32(-m[j]);
      pack(q + kN * j, &block);
      std::memcpy(out, &block, sizeof(block));
      out += sizeof(block);
    }
  });
}

}  // namespace

void best_q4_0(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  best_symmetric<BlockQ4_0>(x, importance, n_k, 8.0f, out);
}
void best_q4_1(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  best_affine<BlockQ4_1>(x, importance, n_k, 15.0f, out);
}
void best_q5_0(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  best_symmetric<BlockQ5_0>(x, importance, n_k, 16.0f, out);
}
void best_q5_1(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  best_affine<BlockQ5_1>(x, importance, n_k, 31.0f, out);
}
void best_q8_0(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  best_symmetric<BlockQ8_0>(x, importance, n_k, 128.0f, out);
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
