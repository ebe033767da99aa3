#pragma once

#include <cstdint>
#include <cstring>

#include "core/base/half.h"
#include "core/base/quant_blocks.h"

/// Every quantised format as one shape: 32 elements along k with integer levels, integer sub-scales
/// and float scales. Decoders and generic kernels read blocks through these functions only.
namespace infer::kern::generic {

/// w[i] = (d * sc[i / 16]) * q[i] - m. For formats without integer sub-scales sc = 1; without a
/// minimum m = 0. All of d * sc, (d * sc) * q and m are exact in f32; only the subtraction rounds.
struct Unpacked32 {
  int8_t q[32];
  int32_t sc[2];
  float d;
  float m;
};

/// 6-bit scale and minimum of sub-block j (0..7) of Q4_K and Q5_K: the first four sit in the low
/// six bits of bytes 0..3 (scales) and 4..7 (minima); of the last four the low nibbles are in
/// bytes 8..11 and the upper two bits on top of bytes 0..7.
[[gnu::always_inline]] inline void scale_min_k(const uint8_t* s, int j, int& sc, int& mn) {
  if (j < 4) {
    sc = s[j] & 63;
    mn = s[j + 4] & 63;
  } else {
    sc = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    mn = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

[[gnu::always_inline]] inline int high_bit(const uint8_t* qh, int i) {
  return (qh[i >> 3] >> (i & 7)) & 1;
}

[[gnu::always_inline]] inline void set_scales(Unpacked32& o, int sc0, int sc1, float d, float m) {
  o.sc[0] = sc0;
  o.sc[1] = sc1;
  o.d = d;
  o.m = m;
}

/// `sub` is the 32-element part of a super-block (0 for the legacy formats).
[[gnu::always_inline]] inline void unpack(const BlockQ4_0& b, int /*sub*/, Unpacked32& o) {
  for (int i = 0; i < 16; ++i) {
    o.q[i] = static_cast<int8_t>((b.qs[i] & 15) - 8);
    o.q[i + 16] = static_cast<int8_t>((b.qs[i] >> 4) - 8);
  }
  set_scales(o, 1, 1, f32_from_f16(b.d), 0.0f);
}

[[gnu::always_inline]] inline void unpack(const BlockQ4_1& b, int /*sub*/, Unpacked32& o) {
  for (int i = 0; i < 16; ++i) {
    o.q[i] = static_cast<int8_t>(b.qs[i] & 15);
    o.q[i + 16] = static_cast<int8_t>(b.qs[i] >> 4);
  }
  set_scales(o, 1, 1, f32_from_f16(b.d), -f32_from_f16(b.m));
}

[[gnu::always_inline]] inline void unpack(const BlockQ5_0& b, int /*sub*/, Unpacked32& o) {
  for (int i = 0; i < 16; ++i) {
    o.q[i] = static_cast<int8_t>(((b.qs[i] & 15) | (high_bit(b.qh, i) << 4)) - 16);
    o.q[i + 16] = static_cast<int8_t>(((b.qs[i] >> 4) | (high_bit(b.qh, i + 16) << 4)) - 16);
  }
  set_scales(o, 1, 1, f32_from_f16(b.d), 0.0f);
}

[[gnu::always_inline]] inline void unpack(const BlockQ5_1& b, int /*sub*/, Unpacked32& o) {
  for (int i = 0; i < 16; ++i) {
    o.q[i] = static_cast<int8_t>((b.qs[i] & 15) | (high_bit(b.qh, i) << 4));
    o.q[i + 16] = static_cast<int8_t>((b.qs[i] >> 4) | (high_bit(b.qh, i + 16) << 4));
  }
  set_scales(o, 1, 1, f32_from_f16(b.d), -f32_from_f16(b.m));
}

[[gnu::always_inline]] inline void unpack(const BlockQ8_0& b, int /*sub*/, Unpacked32& o) {
  std::memcpy(o.q, b.qs, 32);
  set_scales(o, 1, 1, f32_from_f16(b.d), 0.0f);
}

[[gnu::always_inline]] inline void unpack(const BlockQ4_K& b, int sub, Unpacked32& o) {
  const uint8_t* qs = b.qs + (sub / 2) * 32;  // low nibbles: even sub-block, high: odd
  const int shift = (sub & 1) * 4;
  for (int i = 0; i < 32; ++i) o.q[i] = static_cast<int8_t>((qs[i] >> shift) & 15);
  int sc = 0, mn = 0;
  scale_min_k(b.scales, sub, sc, mn);
  set_scales(o, sc, sc, f32_from_f16(b.d), f32_from_f16(b.dmin) * static_cast<float>(mn));
}

[[gnu::always_inline]] inline void unpack(const BlockQ5_K& b, int sub, Unpacked32& o) {
  const uint8_t* qs = b.qs + (sub / 2) * 32;
  const int shift = (sub & 1) * 4;
  for (int i = 0; i < 32; ++i) {
    o.q[i] = static_cast<int8_t>(((qs[i] >> shift) & 15) | (((b.qh[i] >> sub) & 1) << 4));
  }
  int sc = 0, mn = 0;
  scale_min_k(b.scales, sub, sc, mn);
  set_scales(o, sc, sc, f32_from_f16(b.d), f32_from_f16(b.dmin) * static_cast<float>(mn));
}

[[gnu::always_inline]] inline void unpack(const BlockQ6_K& b, int sub, Unpacked32& o) {
  const int part = sub & 3;  // of the 128-element half
  const uint8_t* ql = b.ql + (sub / 4) * 64 + (part & 1) * 32;
  const uint8_t* qh = b.qh + (sub / 4) * 32;
  const int shift = (part / 2) * 4;
  for (int i = 0; i < 32; ++i) {
    const int level = ((ql[i] >> shift) & 15) | (((qh[i] >> (2 * part)) & 3) << 4);
    o.q[i] = static_cast<int8_t>(level - 32);
  }
  set_scales(o, b.scales[2 * sub], b.scales[2 * sub + 1], f32_from_f16(b.d), 0.0f);
}

template <class Block>
inline constexpr int kSubBlocks = 1;
template <>
inline constexpr int kSubBlocks<BlockQ4_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ5_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ6_K> = 8;

}  // namespace infer::kern::generic
