#include "core/base/quant_blocks.h"
#include "quantize/encode/affine.h"
#include "quantize/encode/rows.h"

/// Q2_K, Q4_K, Q5_K.
namespace infer::quantize::INFER_ENCODE_LEVEL {
namespace {

constexpr AffineSearch kQ4Search{.flat = 1.1f,
                                 .grid_from = -1.0f,
                                 .grid_step = 0.2f,
                                 .n_grid = 11,
                                 .n_refine = 1,
                                 .scale_radius = 3,
                                 .min_radius = 2,
                                 .n_again = 1};
constexpr AffineSearch kQ5Search{.flat = 1.2f,
                                 .grid_from = -1.0f,
                                 .grid_step = 0.2f,
                                 .n_grid = 11,
                                 .n_refine = 1,
                                 .scale_radius = 2,
                                 .min_radius = 2,
                                 .n_again = 0};
constexpr AffineSearch kQ2Search{.flat = 1.0f,
                                 .grid_from = -0.9f,
                                 .grid_step = 0.1f,
                                 .n_grid = 16,
                                 .n_refine = 2,
                                 .scale_radius = 2,
                                 .min_radius = 2,
                                 .n_again = 1};

/// 6-bit scales and minimums of 8 sub-blocks in 12 bytes: the first four of each in the low six
/// bits of bytes 0..3 and 4..7, those of the last four in bytes 8..11, their upper bits above the
/// former.
void pack_scales(const float* sc, const float* mn, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    const auto s = static_cast<unsigned>(sc[j]);
    const auto m = static_cast<unsigned>(mn[j]);
    const auto s4 = static_cast<unsigned>(sc[j + 4]);
    const auto m4 = static_cast<unsigned>(mn[j + 4]);
    out[j] = static_cast<uint8_t>(s | (s4 >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(m | (m4 >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((s4 & 15) | (m4 & 15) << 4);
  }
}

void pack(const uint8_t* q, BlockQ4_K* out) {
  for (int half = 0; half < 4; ++half) {
    for (int i = 0; i < 32; ++i) {
      out->qs[32 * half + i] = static_cast<uint8_t>(q[64 * half + i] | q[64 * half + 32 + i] << 4);
    }
  }
}

void pack(const uint8_t* q, BlockQ5_K* out) {
  for (int i = 0; i < 32; ++i) {
    unsigned high = 0;
    for (int j = 0; j < 8; ++j) high |= static_cast<unsigned>(q[32 * j + i] >> 4) << j;
    out->qh[i] = static_cast<uint8_t>(high);
    for (int half = 0; half < 4; ++half) {
      out->qs[32 * half + i] =
          static_cast<uint8_t>((q[64 * half + i] & 15) | (q[64 * half + 32 + i] & 15) << 4);
    }
  }
}

/// Two super-blocks of eight sub-blocks at a time; of a last one alone the twin is dropped.
template <class Block>
void encode_6bit(const float* x, const float* importance, int64_t n_k, float top,
                 const AffineSearch& how, std::byte* out) {
  constexpr int kW = 16, kN = 32;
  for (int64_t k = 0; k < n_k; k += 2 * kBlock256) {
    const int n = n_k - k > kBlock256 ? 2 : 1;
    const float* from = x + k;
    const float* weight = importance == nullptr ? nullptr : importance + k;
    alignas(64) float twin[2][2 * kBlock256];
    if (n == 1) {
      for (int i = 0; i < 2; ++i) {
        std::memcpy(twin[0] + i * kBlock256, from, kBlock256 * sizeof(float));
        if (weight) std::memcpy(twin[1] + i * kBlock256, weight, kBlock256 * sizeof(float));
      }
      from = twin[0];
      weight = weight ? twin[1] : nullptr;
    }
    Blocks<kN, kW> b;
    load_blocks<8>(from, weight, how.flat, &b);
    const AffineScales<kW> scales = affine_super<8>(b, top, 63.0f, how);
    F32<kW> levels[kN];
    affine_quantise(b, scales.fit(), top, levels);
    uint8_t q[kN * kW];
    store_levels(levels, 0.0f, q);
    alignas(64) float sc[kW], mn[kW], d[kW], dmin[kW];
    scales.sc.store(sc);
    scales.mn.store(mn);
    scales.d.store(d);
    scales.dmin.store(dmin);
    for (int i = 0; i < n; ++i) {
      Block block;
      block.d = f16_from_f32(d[8 * i]);
      block.dmin = f16_from_f32(dmin[8 * i]);
      pack_scales(sc + 8 * i, mn + 8 * i, block.scales);
      pack(q + kBlock256 * i, &block);
      std::memcpy(out, &block, sizeof(block));
      out += sizeof(block);
    }
  }
}

}  // namespace

void encode_q4_k(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  encode_6bit<BlockQ4_K>(x, importance, n_k, 15.0f, kQ4Search, out);
}

void encode_q5_k(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  encode_6bit<BlockQ5_K>(x, importance, n_k, 31.0f, kQ5Search, out);
}

void encode_q2_k(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  constexpr int kW = 16, kN = 16;
  for (int64_t k = 0; k < n_k; k += kBlock256) {
    Blocks<kN, kW> b;
    load_blocks<16>(x + k, importance == nullptr ? nullptr : importance + k, kQ2Search.flat, &b);
    const AffineScales<kW> scales = affine_super<16>(b, 3.0f, 15.0f, kQ2Search);
    F32<kW> levels[kN];
    affine_quantise(b, scales.fit(), 3.0f, levels);
    uint8_t q[kN * kW];
    store_levels(levels, 0.0f, q);
    alignas(64) float sc[kW], mn[kW], d[kW], dmin[kW];
    scales.sc.store(sc);
    scales.mn.store(mn);
    scales.d.store(d);
    scales.dmin.store(dmin);
    BlockQ2_K block;
    block.d = f16_from_f32(d[0]);
    block.dmin = f16_from_f32(dmin[0]);
    for (int j = 0; j < kW; ++j) {
      block.scales[j] =
          static_cast<uint8_t>(static_cast<unsigned>(sc[j]) | static_cast<unsigned>(mn[j]) << 4);
    }
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t* p = q + 128 * half + i;
        block.qs[32 * half + i] = static_cast<uint8_t>(p[0] | p[32] << 2 | p[64] << 4 | p[96] << 6);
      }
    }
    std::memcpy(out, &block, sizeof(block));
    out += sizeof(block);
  }
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
