#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "core/base/error.h"
#include "core/base/half.h"
#include "core/base/quant_blocks.h"
#include "quantize/encoder.h"

/// Takes the place of the encoders until they are there: plain and slow (those of
/// tests/support/encode.cpp).
namespace infer::quantize {
namespace {

using In32 = std::span<const float, kBlock32>;
using In256 = std::span<const float, kBlock256>;

float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/// The value of largest magnitude, with its sign.
float extreme(std::span<const float> x) {
  float best = 0.0f;
  for (const float v : x) {
    if (std::fabs(v) > std::fabs(best)) best = v;
  }
  return best;
}

uint8_t level(float v, int top) {
  return static_cast<uint8_t>(std::clamp(static_cast<int>(std::floor(v)), 0, top));
}

void encode_block(In32 x, BlockQ8_0& b) {
  const float d = std::fabs(extreme(x)) / 127.0f;
  b.d = f16_from_f32(d);
  for (size_t i = 0; i < x.size(); ++i)
    b.qs[i] = static_cast<int8_t>(std::round(x[i] * inverse(d)));
}

void encode_block(In32 x, BlockQ4_0& b) {
  const float d = extreme(x) / -8.0f;
  b.d = f16_from_f32(d);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t lo = level(x[i] * inverse(d) + 8.5f, 15);
    const uint8_t hi = level(x[i + 16] * inverse(d) + 8.5f, 15);
    b.qs[i] = static_cast<uint8_t>(lo | hi << 4);
  }
}

void encode_block(In32 x, BlockQ4_1& b) {
  const auto [lo_it, hi_it] = std::minmax_element(x.begin(), x.end());
  const float m = *lo_it;
  const float d = (*hi_it - m) / 15.0f;
  b.d = f16_from_f32(d);
  b.m = f16_from_f32(m);
  for (size_t i = 0; i < 16; ++i) {
    const uint8_t lo = level((x[i] - m) * inverse(d) + 0.5f, 15);
    const uint8_t hi = level((x[i + 16] - m) * inverse(d) + 0.5f, 15);
    b.qs[i] = static_cast<uint8_t>(lo | hi << 4);
  }
}

/// Splits 32 five-bit numbers into nibbles and a word of high bits.
void pack5(const std::array<uint8_t, kBlock32>& q, uint8_t* qh, uint8_t* qs) {
  uint32_t high = 0;
  for (size_t i = 0; i < 16; ++i) {
    qs[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
    high |= static_cast<uint32_t>(q[i] >> 4) << i | static_cast<uint32_t>(q[i + 16] >> 4)
                                                        << (i + 16);
  }
  std::memcpy(qh, &high, sizeof(high));
}

void encode_block(In32 x, BlockQ5_0& b) {
  const float d = extreme(x) / -16.0f;
  b.d = f16_from_f32(d);
  std::array<uint8_t, kBlock32> q{};
  for (size_t i = 0; i < q.size(); ++i) q[i] = level(x[i] * inverse(d) + 16.5f, 31);
  pack5(q, b.qh, b.qs);
}

void encode_block(In32 x, BlockQ5_1& b) {
  const auto [lo_it, hi_it] = std::minmax_element(x.begin(), x.end());
  const float m = *lo_it;
  const float d = (*hi_it - m) / 31.0f;
  b.d = f16_from_f32(d);
  b.m = f16_from_f32(m);
  std::array<uint8_t, kBlock32> q{};
  for (size_t i = 0; i < q.size(); ++i) q[i] = level((x[i] - m) * inverse(d) + 0.5f, 31);
  pack5(q, b.qh, b.qs);
}

/// Six-bit scales and mins of a K-quant super-block, and the levels they give.
struct KLevels {
  uint16_t d = 0, dmin = 0;
  std::array<uint8_t, 12> scales{};
  std::array<uint8_t, kBlock256> q{};
};

KLevels k_levels(In256 x, int top) {
  std::array<float, 8> scale{};
  std::array<float, 8> low{};
  for (size_t g = 0; g < 8; ++g) {
    const auto [lo, hi] = std::minmax_element(x.begin() + g * 32, x.begin() + (g + 1) * 32);
    low[g] = std::max(0.0f, -*lo);
    scale[g] = (std::max(*hi, 0.0f) + low[g]) / static_cast<float>(top);
  }
  KLevels out;
  out.d = f16_from_f32(*std::max_element(scale.begin(), scale.end()) / 63.0f);
  out.dmin = f16_from_f32(*std::max_element(low.begin(), low.end()) / 63.0f);
  const float d = f32_from_f16(out.d);
  const float dmin = f32_from_f16(out.dmin);
  std::array<uint8_t, 8> sc{};
  std::array<uint8_t, 8> mn{};
  for (size_t g = 0; g < 8; ++g) {
    sc[g] = level(scale[g] * inverse(d) + 0.5f, 63);
    mn[g] = level(low[g] * inverse(dmin) + 0.5f, 63);
    const float step = inverse(d * static_cast<float>(sc[g]));
    const float base = dmin * static_cast<float>(mn[g]);
    for (size_t i = g * 32; i < (g + 1) * 32; ++i)
      out.q[i] = level((x[i] + base) * step + 0.5f, top);
  }
  for (size_t j = 0; j < 4; ++j) {
    out.scales[j] = static_cast<uint8_t>(sc[j] | (sc[j + 4] >> 4) << 6);
    out.scales[j + 4] = static_cast<uint8_t>(mn[j] | (mn[j + 4] >> 4) << 6);
    out.scales[j + 8] = static_cast<uint8_t>((sc[j + 4] & 15) | (mn[j + 4] & 15) << 4);
  }
  return out;
}

/// Two-bit fields of 256 levels: four elements 32 apart in a byte, a half of 128 after the other.
void pack2(const std::array<uint8_t, kBlock256>& q, uint8_t* qs) {
  for (size_t half = 0; half < 2; ++half) {
    for (size_t l = 0; l < 32; ++l) {
      const uint8_t* s = q.data() + half * 128 + l;
      qs[half * 32 + l] =
          static_cast<uint8_t>((s[0] & 3) | (s[32] & 3) << 2 | (s[64] & 3) << 4 | (s[96] & 3) << 6);
    }
  }
}

void encode_block(In256 x, BlockQ2_K& b) {
  std::array<float, 16> scale{}, low{};
  for (size_t g = 0; g < 16; ++g) {
    const auto [lo, hi] = std::minmax_element(x.begin() + g * 16, x.begin() + (g + 1) * 16);
    low[g] = std::max(0.0f, -*lo);
    scale[g] = (std::max(*hi, 0.0f) + low[g]) / 3.0f;
  }
  b.d = f16_from_f32(*std::max_element(scale.begin(), scale.end()) / 15.0f);
  b.dmin = f16_from_f32(*std::max_element(low.begin(), low.end()) / 15.0f);
  const float d = f32_from_f16(b.d);
  const float dmin = f32_from_f16(b.dmin);
  std::array<uint8_t, kBlock256> q{};
  for (size_t g = 0; g < 16; ++g) {
    const uint8_t sc = level(scale[g] * inverse(d) + 0.5f, 15);
    const uint8_t mn = level(low[g] * inverse(dmin) + 0.5f, 15);
    b.scales[g] = static_cast<uint8_t>(sc | mn << 4);
    const float step = inverse(d * static_cast<float>(sc));
    const float base = dmin * static_cast<float>(mn);
    for (size_t i = g * 16; i < (g + 1) * 16; ++i) q[i] = level((x[i] + base) * step + 0.5f, 3);
  }
  pack2(q, b.qs);
}

void encode_block(In256 x, BlockQ3_K& b) {
  std::array<float, 16> scale{};
  for (size_t g = 0; g < 16; ++g) scale[g] = extreme(x.subspan(g * 16, 16)) / -4.0f;
  b.d = f16_from_f32(std::fabs(extreme(scale)) / 31.0f);
  const float d = f32_from_f16(b.d);
  std::array<uint8_t, kBlock256> q{};
  for (size_t g = 0; g < 16; ++g) {
    const int sc = std::clamp(static_cast<int>(std::round(scale[g] * inverse(d))), -32, 31) + 32;
    b.scales[g & 7] = static_cast<uint8_t>(b.scales[g & 7] | (sc & 15) << (4 * (g / 8)));
    b.scales[8 + (g & 3)] =
        static_cast<uint8_t>(b.scales[8 + (g & 3)] | (sc >> 4) << (2 * (g / 4)));
    const float step = inverse(d * static_cast<float>(sc - 32));
    for (size_t i = g * 16; i < (g + 1) * 16; ++i) q[i] = level(x[i] * step + 4.5f, 7);
  }
  pack2(q, b.qs);
  for (size_t i = 0; i < q.size(); ++i)
    b.hmask[i % 32] = static_cast<uint8_t>(b.hmask[i % 32] | (q[i] >> 2) << (i / 32));
}

/// Index of the level next to v.
uint8_t iq4_level(float v) {
  size_t best = 0;
  for (size_t i = 1; i < std::size(kIq4Levels); ++i) {
    if (std::fabs(v - kIq4Levels[i]) < std::fabs(v - kIq4Levels[best])) best = i;
  }
  return static_cast<uint8_t>(best);
}

void pack_iq4(In32 x, float step, uint8_t* qs) {
  for (size_t i = 0; i < 16; ++i)
    qs[i] = static_cast<uint8_t>(iq4_level(x[i] * step) | iq4_level(x[i + 16] * step) << 4);
}

void encode_block(In32 x, BlockIQ4_NL& b) {
  b.d = f16_from_f32(extreme(x) / -127.0f);
  pack_iq4(x, inverse(f32_from_f16(b.d)), b.qs);
}

void encode_block(In256 x, BlockQ4_K& b) {
  const KLevels k = k_levels(x, 15);
  b.d = k.d;
  b.dmin = k.dmin;
  std::copy(k.scales.begin(), k.scales.end(), b.scales);
  for (size_t p = 0; p < 4; ++p) {
    for (size_t l = 0; l < 32; ++l)
      b.qs[p * 32 + l] = static_cast<uint8_t>(k.q[p * 64 + l] | k.q[p * 64 + 32 + l] << 4);
  }
}

void encode_block(In256 x, BlockQ5_K& b) {
  const KLevels k = k_levels(x, 31);
  b.d = k.d;
  b.dmin = k.dmin;
  std::copy(k.scales.begin(), k.scales.end(), b.scales);
  std::fill(std::begin(b.qh), std::end(b.qh), uint8_t{0});
  for (size_t p = 0; p < 4; ++p) {
    for (size_t l = 0; l < 32; ++l) {
      const uint8_t lo = k.q[p * 64 + l];
      const uint8_t hi = k.q[p * 64 + 32 + l];
      b.qs[p * 32 + l] = static_cast<uint8_t>((lo & 15) | (hi & 15) << 4);
      b.qh[l] = static_cast<uint8_t>(b.qh[l] | (lo >> 4) << (2 * p) | (hi >> 4) << (2 * p + 1));
    }
  }
}

void encode_block(In256 x, BlockQ6_K& b) {
  std::array<float, 16> scale{};
  for (size_t g = 0; g < 16; ++g) scale[g] = extreme(x.subspan(g * 16, 16)) / -32.0f;
  b.d = f16_from_f32(std::fabs(extreme(scale)) / 127.0f);
  const float d = f32_from_f16(b.d);
  std::array<uint8_t, kBlock256> q{};
  for (size_t g = 0; g < 16; ++g) {
    b.scales[g] =
        static_cast<int8_t>(std::clamp(std::round(scale[g] * inverse(d)), -128.0f, 127.0f));
    const float step = inverse(d * static_cast<float>(b.scales[g]));
    for (size_t i = g * 16; i < (g + 1) * 16; ++i) q[i] = level(x[i] * step + 32.5f, 63);
  }
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* s = q.data() + half * 128;
    for (size_t l = 0; l < 32; ++l) {
      b.ql[half * 64 + l] = static_cast<uint8_t>((s[l] & 15) | (s[l + 64] & 15) << 4);
      b.ql[half * 64 + 32 + l] = static_cast<uint8_t>((s[l + 32] & 15) | (s[l + 96] & 15) << 4);
      b.qh[half * 32 + l] = static_cast<uint8_t>(s[l] >> 4 | (s[l + 32] >> 4) << 2 |
                                                 (s[l + 64] >> 4) << 4 | (s[l + 96] >> 4) << 6);
    }
  }
}

template <class Block, size_t kLen>
void encode_blocks(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t i = 0; i < n_k / static_cast<int64_t>(kLen); ++i) {
    Block b{};
    encode_block(std::span<const float, kLen>(x + i * static_cast<int64_t>(kLen), kLen), b);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(Block)), &b, sizeof(Block));
  }
}

template <uint16_t (*kConvert)(float)>
void encode_halves(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t i = 0; i < n_k; ++i) {
    const uint16_t h = kConvert(x[i]);
    std::memcpy(out + i * 2, &h, sizeof(h));
  }
}
uint16_t to_f16(float f) { return f16_from_f32(f); }
uint16_t to_bf16(float f) { return bf16_from_f32(f); }

void encode_f32(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  std::memcpy(out, x, static_cast<size_t>(n_k) * sizeof(float));
}

bool all_finite(const float* x, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite = finite && std::isfinite(x[i]);
  return finite;
}

}  // namespace

Result<EncodeTable> select_encoders(const CpuFeatures& /*cpu*/, std::string_view isa) {
  if (!isa.empty() && isa != "generic")
    return make_error(ErrorCode::kInvalidArgument, "no level '{}'", isa);
  EncodeTable t;
  t.isa = "generic";
  const auto set = [&](DType type, EncodeRow fn) { t.plain[static_cast<size_t>(type)] = fn; };
  set(DType::kF32, encode_f32);
  set(DType::kF16, encode_halves<to_f16>);
  set(DType::kBF16, encode_halves<to_bf16>);
  set(DType::kQ8_0, encode_blocks<BlockQ8_0, kBlock32>);
  set(DType::kQ4_0, encode_blocks<BlockQ4_0, kBlock32>);
  set(DType::kQ4_1, encode_blocks<BlockQ4_1, kBlock32>);
  set(DType::kQ5_0, encode_blocks<BlockQ5_0, kBlock32>);
  set(DType::kQ5_1, encode_blocks<BlockQ5_1, kBlock32>);
  set(DType::kIQ4_NL, encode_blocks<BlockIQ4_NL, kBlock32>);
  set(DType::kQ2_K, encode_blocks<BlockQ2_K, kBlock256>);
  set(DType::kQ3_K, encode_blocks<BlockQ3_K, kBlock256>);
  set(DType::kQ4_K, encode_blocks<BlockQ4_K, kBlock256>);
  set(DType::kQ5_K, encode_blocks<BlockQ5_K, kBlock256>);
  set(DType::kQ6_K, encode_blocks<BlockQ6_K, kBlock256>);
  std::copy(std::begin(t.plain), std::end(t.plain), std::begin(t.best));
  t.all_finite = all_finite;
  return t;
}

}  // namespace infer::quantize
