#pragma once

#include <cstdint>
#include <cstring>

#include "core/base/half.h"
#include "core/base/quant_blocks.h"

/// Every quantised format as one shape: 32 elements along k with integer levels, integer sub-scales
/// and float scales. Decoders and generic kernels read blocks through these functions only.
namespace infer::kern::generic {

/// w[i] = (d * sc[i / 16]) * q[i] - m * mn[i / 16]. For formats without integer sub-scales sc = 1;
/// without a minimum m = 0; mn = 1 unless the halves have minima of their own. All of d * sc,
/// (d * sc) * q and m * mn are exact in f32; only the subtraction rounds.
struct Unpacked32 {
  int8_t q[32];
  int32_t sc[2], mn[2];
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
  o.mn[0] = o.mn[1] = 1;
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

/// Elements 128 * h + 32 * p + l have bits 2p, 2p + 1 of qs[32 * h + l].
[[gnu::always_inline]] inline void unpack(const BlockQ2_K& b, int sub, Unpacked32& o) {
  const uint8_t* qs = b.qs + (sub / 4) * 32;
  const int shift = 2 * (sub & 3);
  for (int i = 0; i < 32; ++i) o.q[i] = static_cast<int8_t>((qs[i] >> shift) & 3);
  const uint8_t* s = b.scales + 2 * sub;
  set_scales(o, s[0] & 15, s[1] & 15, f32_from_f16(b.d), f32_from_f16(b.dmin));
  o.mn[0] = s[0] >> 4;
  o.mn[1] = s[1] >> 4;
}

/// 6-bit scale of half sub-block j (0..15) of Q3_K: a nibble of bytes 0..7 (high from j = 8 on),
/// two upper bits in bytes 8..11, four of them a byte with j % 4 in common.
[[gnu::always_inline]] inline int scale_q3_k(const uint8_t* s, int j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  return (low | (((s[8 + (j & 3)] >> (2 * (j / 4))) & 3) << 4)) - 32;
}

[[gnu::always_inline]] inline void unpack(const BlockQ3_K& b, int sub, Unpacked32& o) {
  const uint8_t* qs = b.qs + (sub / 4) * 32;
  const int shift = 2 * (sub & 3);
  for (int i = 0; i < 32; ++i) {
    const int high = (b.hmask[i] >> sub) & 1;
    o.q[i] = static_cast<int8_t>((((qs[i] >> shift) & 3) | (high << 2)) - 4);
  }
  set_scales(o, scale_q3_k(b.scales, 2 * sub), scale_q3_k(b.scales, 2 * sub + 1), f32_from_f16(b.d),
             0.0f);
}

[[gnu::always_inline]] inline void unpack_iq4(const uint8_t* qs, Unpacked32& o) {
  for (int i = 0; i < 16; ++i) {
    o.q[i] = kIq4Levels[qs[i] & 15];
    o.q[i + 16] = kIq4Levels[qs[i] >> 4];
  }
}

[[gnu::always_inline]] inline void unpack(const BlockIQ4_NL& b, int /*sub*/, Unpacked32& o) {
  unpack_iq4(b.qs, o);
  set_scales(o, 1, 1, f32_from_f16(b.d), 0.0f);
}

/// -32..31, of sub-block `sub`.
[[gnu::always_inline]] inline int scale_iq4_xs(const BlockIQ4_XS& b, int sub) {
  const int low = (b.scales_l[sub / 2] >> (4 * (sub & 1))) & 15;
  return (low | (((b.scales_h >> (2 * sub)) & 3) << 4)) - 32;
}

[[gnu::always_inline]] inline void unpack(const BlockIQ4_XS& b, int sub, Unpacked32& o) {
  unpack_iq4(b.qs + 16 * sub, o);
  const int sc = scale_iq4_xs(b, sub);
  set_scales(o, sc, sc, f32_from_f16(b.d), 0.0f);
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
inline constexpr int kSubBlocks<BlockQ2_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ3_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ4_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ5_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockQ6_K> = 8;
template <>
inline constexpr int kSubBlocks<BlockIQ4_XS> = 8;

}  // namespace infer::kern::generic
