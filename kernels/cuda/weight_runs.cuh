#pragma once

#include "kernels/cuda/gemm_bits.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_layout.h"

/// Quantised weights in runs: 16 neighbours along k, which share a scale in every type. A run is
/// loaded as it lies in its planes (Bytes and Factors, in registers), and unpacked later, when the
/// loads have arrived: levels in bytes, u = q + kBias in 0..255, and w = scale * q - minimum.
/// The formats are described in core/base/quant_blocks.h.
namespace infer::cuda::gemm {

/// The planes of a matrix (expert 0).
struct Planes {
  const std::byte* plane[kMaxPlanes];
  INFER_DEVICE const std::byte* at(int i, int block, int block_bytes) const {
    return plane[i] + static_cast<int64_t>(block) * block_bytes;
  }
};

struct Scale {
  float scale, minimum;
};

/// What one type is. Runs r and r + kPartner, the first and the second of a pair, come from the
/// same Bytes (but for q8_0) and from one Factors. kShared: runs that share scale and minimum (2:
/// 32 weights, 1: each run has its own).
template <DType kType>
struct Runs;

INFER_DEVICE uint16_t load_u16(const std::byte* p) { return load_readonly<uint16_t>(p); }
INFER_DEVICE uint32_t load_u32(const std::byte* p) { return load_readonly<uint32_t>(p); }
INFER_DEVICE uint32_t load_u8(const std::byte* p) { return load_readonly<uint8_t>(p); }
INFER_DEVICE uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/// Byte i of out: bit i of `bits`.
INFER_DEVICE uint32_t spread_4_bits(uint32_t bits) {
  return (bits & 15) * 0x00204081u & 0x01010101u;
}

// --- Legacy types: blocks of 32, two runs
// --------------------------------------------------------------

/// Levels of 4 bits, then {d} or {d, m} in the last plane.
template <int kLevelBias, bool kMin>
struct LegacyRuns4 {
  static constexpr int kBlockLen = 32, kPartner = 1, kShared = 2, kBias = kLevelBias;
  static constexpr bool kHasMin = kMin;
  struct Bytes {
    uint4 qs;
  };
  struct Factors {
    uint32_t dm;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(0, block, 16))};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {kMin ? load_u32(p.at(1, block, 4)) : load_u16(p.at(1, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = word_of(raw.qs, i) >> (4 * run) & 0x0f0f0f0fu;
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(static_cast<uint16_t>(raw.dm)),
            kMin ? -f32_from_f16(static_cast<uint16_t>(raw.dm >> 16)) : 0.0f};
  }
};
template <>
struct Runs<DType::kQ4_0> : LegacyRuns4<8, false> {};
template <>
struct Runs<DType::kQ4_1> : LegacyRuns4<0, true> {};

/// The same with a fifth bit of each level in the plane between.
template <int kLevelBias, bool kMin>
struct LegacyRuns5 {
  static constexpr int kBlockLen = 32, kPartner = 1, kShared = 2, kBias = kLevelBias;
  static constexpr bool kHasMin = kMin;
  struct Bytes {
    uint4 qs;
    uint32_t qh;
  };
  struct Factors {
    uint32_t dm;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(0, block, 16)), load_u32(p.at(1, block, 4))};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {kMin ? load_u32(p.at(2, block, 4)) : load_u16(p.at(2, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = word_of(raw.qs, i) >> (4 * run) & 0x0f0f0f0fu;
      u[i] = low | spread_4_bits(raw.qh >> (16 * run + 4 * i)) << 4;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(static_cast<uint16_t>(raw.dm)),
            kMin ? -f32_from_f16(static_cast<uint16_t>(raw.dm >> 16)) : 0.0f};
  }
};
template <>
struct Runs<DType::kQ5_0> : LegacyRuns5<16, false> {};
template <>
struct Runs<DType::kQ5_1> : LegacyRuns5<0, true> {};

template <>
struct Runs<DType::kQ8_0> {
  static constexpr int kBlockLen = 32, kPartner = 1, kShared = 2, kBias = 128;
  static constexpr bool kHasMin = false;
  struct Bytes {
    uint4 qs;
  };
  struct Factors {
    uint32_t d;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 32) + run * 16)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {load_u16(p.at(1, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int /*run*/, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = word_of(raw.qs, i) ^ 0x80808080u;
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(static_cast<uint16_t>(raw.d)), 0.0f};
  }
};

// --- IQ4: nibbles that index a table of levels
// ----------------------------------------------------------------------

/// The table's entries (kIq4Levels) with 128 added, 16 bytes.
INFER_DEVICE uint32_t iq4_levels(uint32_t nibbles, int high) {
  constexpr uint32_t kTable[4] = {0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
  uint32_t part[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {  // two bytes, four nibbles: low, high, low, high
    const uint32_t n = nibbles >> (16 * i);
    const uint32_t below_8 = byte_perm(kTable[0], kTable[1], n & 0x7777u);
    const uint32_t from_8 = byte_perm(kTable[2], kTable[3], n & 0x7777u);
    part[i] = byte_perm(below_8, from_8, 0x3210u | (n & 0x8888u) >> 1);
  }
  return byte_perm(part[0], part[1], high != 0 ? 0x7531u : 0x6420u);
}

template <>
struct Runs<DType::kIQ4_NL> : LegacyRuns4<128, false> {
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = iq4_levels(word_of(raw.qs, i), run);
  }
};

template <>
struct Runs<DType::kIQ4_XS> {
  static constexpr int kBlockLen = 256, kPartner = 1, kShared = 2, kBias = 128;
  static constexpr bool kHasMin = false;
  struct Bytes {
    uint4 qs;
  };
  struct Factors {
    uint2 scales;  ///< d, scales_h, scales_l
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {load_readonly<uint2>(p.at(1, block, 8))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = iq4_levels(word_of(raw.qs, i), run % 2);
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int /*second*/) {
    const int sub = run / 2;
    const uint32_t low = raw.scales.y >> (4 * sub) & 15, high = raw.scales.x >> (16 + 2 * sub) & 3;
    const int sc = static_cast<int>(low | high << 4) - 32;
    return {f32_from_f16(static_cast<uint16_t>(raw.scales.x)) * static_cast<float>(sc), 0.0f};
  }
};

// --- K-quants: blocks of 256, sixteen runs
// --------------------------------------------------------------

/// scale and minimum of sub-block j: {d, dmin}, then 12 bytes as quant_blocks.h packs them.
INFER_DEVICE Scale scale_min_k(const uint4& s, int j) {
  const int shift = 8 * (j % 4);
  const uint32_t a = s.y >> shift & 255, b = s.z >> shift & 255, c = s.w >> shift & 255;
  const uint32_t sc = j < 4 ? a & 63 : (c & 15) | a >> 6 << 4;
  const uint32_t mn = j < 4 ? b & 63 : c >> 4 | b >> 6 << 4;
  return {f32_from_f16(static_cast<uint16_t>(s.x)) * static_cast<float>(sc),
          f32_from_f16(static_cast<uint16_t>(s.x >> 16)) * static_cast<float>(mn)};
}

template <>
struct Runs<DType::kQ4_K> {
  static constexpr int kBlockLen = 256, kPartner = 2, kShared = 2, kBias = 0;
  static constexpr bool kHasMin = true;
  struct Bytes {
    uint4 qs;
  };
  struct Factors {
    uint4 scales;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 4 * 32 + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(1, block, 16))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int shift = run / 2 % 2 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = word_of(raw.qs, i) >> shift & 0x0f0f0f0fu;
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int /*second*/) {
    return scale_min_k(raw.scales, run / 2);
  }
};

template <>
struct Runs<DType::kQ5_K> {
  static constexpr int kBlockLen = 256, kPartner = 2, kShared = 2, kBias = 0;
  static constexpr bool kHasMin = true;
  struct Bytes {
    uint4 qs, qh;
  };
  struct Factors {
    uint4 scales;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 4 * 32 + run % 2 * 16),
            load_readonly<uint4>(p.at(1, block, 32) + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(2, block, 16))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int sub = run / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = word_of(raw.qs, i) >> (sub % 2 * 4) & 0x0f0f0f0fu;
      u[i] = low | (word_of(raw.qh, i) >> sub & 0x01010101u) << 4;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int /*second*/) {
    return scale_min_k(raw.scales, run / 2);
  }
};

template <>
struct Runs<DType::kQ6_K> {
  static constexpr int kBlockLen = 256, kPartner = 4, kShared = 1, kBias = 32;
  static constexpr bool kHasMin = false;
  struct Bytes {
    uint4 ql, qh;
  };
  struct Factors {
    uint32_t scale[2], d;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    const int half = run / 8, at = run % 2 * 16;
    return {load_readonly<uint4>(p.at(0, block, 128) + half * 64 + run / 2 % 2 * 32 + at),
            load_readonly<uint4>(p.at(1, block, 64) + half * 32 + at)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int run) {
    const std::byte* scales = p.at(2, block, 16) + run;
    return {{load_u8(scales), load_u8(scales + kPartner)}, load_u16(p.at(3, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int part = run / 2 % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = word_of(raw.ql, i) >> (part / 2 * 4) & 0x0f0f0f0fu;
      u[i] = low | (word_of(raw.qh, i) >> (2 * part) & 0x03030303u) << 4;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int second) {
    return {f32_from_f16(static_cast<uint16_t>(raw.d)) *
                static_cast<float>(static_cast<int8_t>(raw.scale[second])),
            0.0f};
  }
};

template <>
struct Runs<DType::kQ2_K> {
  static constexpr int kBlockLen = 256, kPartner = 2, kShared = 1, kBias = 0;
  static constexpr bool kHasMin = true;
  struct Bytes {
    uint4 qs;
  };
  struct Factors {
    uint32_t scale[2], d;
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 64) + run / 8 * 32 + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int run) {
    const std::byte* scales = p.at(1, block, 16) + run;
    return {{load_u8(scales), load_u8(scales + kPartner)}, load_u32(p.at(2, block, 4))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int shift = run / 2 % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = word_of(raw.qs, i) >> shift & 0x03030303u;
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int second) {
    return {f32_from_f16(static_cast<uint16_t>(raw.d)) * static_cast<float>(raw.scale[second] & 15),
            f32_from_f16(static_cast<uint16_t>(raw.d >> 16)) *
                static_cast<float>(raw.scale[second] >> 4)};
  }
};

template <>
struct Runs<DType::kQ3_K> {
  static constexpr int kBlockLen = 256, kPartner = 2, kShared = 1, kBias = 4;
  static constexpr bool kHasMin = false;
  struct Bytes {
    uint4 qs, hmask;
  };
  struct Factors {
    uint32_t low[2], high[2], d;  ///< the bytes that hold the nibble and the upper bits
  };
  static INFER_DEVICE Bytes load_bytes(const Planes& p, int block, int run) {
    const int at = run % 2 * 16;
    return {load_readonly<uint4>(p.at(0, block, 64) + run / 8 * 32 + at),
            load_readonly<uint4>(p.at(1, block, 32) + at)};
  }
  static INFER_DEVICE Factors load_factors(const Planes& p, int block, int run) {
    const std::byte* scales = p.at(2, block, 12);
    return {{load_u8(scales + run % 8), load_u8(scales + (run + kPartner) % 8)},
            {load_u8(scales + 8 + run % 4), load_u8(scales + 8 + (run + kPartner) % 4)},
            load_u16(p.at(3, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = word_of(raw.qs, i) >> (run / 2 % 4 * 2) & 0x03030303u;
      u[i] = low | (word_of(raw.hmask, i) >> (run / 2) & 0x01010101u) << 2;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int second) {
    const uint32_t sc =
        (raw.low[second] >> (run / 8 * 4) & 15) | (raw.high[second] >> (run / 4 * 2) & 3) << 4;
    return {
        f32_from_f16(static_cast<uint16_t>(raw.d)) * static_cast<float>(static_cast<int>(sc) - 32),
        0.0f};
  }
};

/// Signed levels from those with the bias: no borrow leaves a byte.
template <int kBias>
INFER_DEVICE uint32_t signed_levels(uint32_t u) {
  if (kBias == 0) return u;
  if (kBias == 128) return u ^ 0x80808080u;
  return ((u | 0x80808080u) - kBias * 0x01010101u) ^ 0x80808080u;
}

}  // namespace infer::cuda::gemm
