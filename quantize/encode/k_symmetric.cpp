#include "core/base/quant_blocks.h"
#include "quantize/encode/rows.h"
#include "quantize/encode/symmetric.h"

/// Q3_K, Q6_K: sixteen sub-blocks of 16.
namespace infer::quantize::INFER_ENCODE_LEVEL {
namespace {

constexpr int kW = 16, kN = 16;
constexpr SymmetricSearch kQ6Search{.flat = 1.0f,
                                    .grid_from = -0.8f,
                                    .grid_step = 0.4f,
                                    .n_grid = 5,
                                    .n_refine = 1,
                                    .radius = 2,
                                    .n_again = 0};
constexpr SymmetricSearch kQ3Search{.flat = 1.0f,
                                    .grid_from = -0.9f,
                                    .grid_step = 0.2f,
                                    .n_grid = 9,
                                    .n_refine = 2,
                                    .radius = 3,
                                    .n_again = 1};

struct Encoded {
  uint8_t q[kN * kW];  ///< level + low
  alignas(64) float sc[kW], d[kW];
};

Encoded encode_super(const float* x, const float* importance, float low, float scale_low,
                     const SymmetricSearch& how) {
  Blocks<kN, kW> b;
  load_blocks<kW>(x, importance, how.flat, &b);
  const SymmetricScales<kW> scales = symmetric_super<kW>(b, low, scale_low, how);
  F32<kW> levels[kN];
  symmetric_quantise(b, scales.d * scales.sc, low, levels);
  Encoded e;
  store_levels(levels, low, e.q);
  scales.sc.store(e.sc);
  scales.d.store(e.d);
  return e;
}

}  // namespace

void encode_q3_k(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock256) {
    const Encoded e = encode_super(x + k, importance == nullptr ? nullptr : importance + k, 4.0f,
                                   32.0f, kQ3Search);
    BlockQ3_K block{};
    block.d = f16_from_f32(e.d[0]);
    for (int j = 0; j < kW; ++j) {  // low nibbles in bytes 0..7, upper two bits in 8..11
      const auto s = static_cast<unsigned>(static_cast<int>(e.sc[j]) + 32);
      block.scales[j % 8] = static_cast<uint8_t>(block.scales[j % 8] | (s & 15) << (j / 8 * 4));
      block.scales[8 + j % 4] =
          static_cast<uint8_t>(block.scales[8 + j % 4] | (s >> 4) << (j / 4 * 2));
    }
    for (int i = 0; i < 32; ++i) {
      unsigned mask = 0;
      for (int j = 0; j < 8; ++j) mask |= static_cast<unsigned>(e.q[32 * j + i] >> 2) << j;
      block.hmask[i] = static_cast<uint8_t>(mask);
      for (int half = 0; half < 2; ++half) {
        const uint8_t* p = e.q + 128 * half + i;
        block.qs[32 * half + i] = static_cast<uint8_t>((p[0] & 3) | (p[32] & 3) << 2 |
                                                       (p[64] & 3) << 4 | (p[96] & 3) << 6);
      }
    }
    std::memcpy(out, &block, sizeof(block));
    out += sizeof(block);
  }
}

void encode_q6_k(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; k += kBlock256) {
    const Encoded e = encode_super(x + k, importance == nullptr ? nullptr : importance + k, 32.0f,
                                   128.0f, kQ6Search);
    BlockQ6_K block;
    block.d = f16_from_f32(e.d[0]);
    for (int j = 0; j < kW; ++j) block.scales[j] = static_cast<int8_t>(e.sc[j]);
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t* p = e.q + 128 * half + i;
        block.ql[64 * half + i] = static_cast<uint8_t>((p[0] & 15) | (p[64] & 15) << 4);
        block.ql[64 * half + 32 + i] = static_cast<uint8_t>((p[32] & 15) | (p[96] & 15) << 4);
        block.qh[32 * half + i] =
            static_cast<uint8_t>(p[0] >> 4 | p[32] >> 4 << 2 | p[64] >> 4 << 4 | p[96] >> 4 << 6);
      }
    }
    std::memcpy(out, &block, sizeof(block));
    out += sizeof(block);
  }
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
