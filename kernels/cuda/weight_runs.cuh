#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/quant_bits.cuh"
#include "kernels/cuda/weight_layout.h"

/// Quantised weights in runs: 16 neighbours along k, which share a scale in every type. A run is
/// loaded as it lies in its planes (Bytes and Factors, in registers), and unpacked later, when the
/// loads have arrived: levels in bytes, u = q + kBias in 0..255, and w = scale * q - minimum.
/// The formats are described in core/base/quant_blocks.h.
namespace infer::cuda::gemm {

/// The planes of a matrix, of the first of several experts.
struct Planes {
  const std::byte* plane[kMaxPlanes];
};
/// Those of one expert, which lies `offset` bytes behind the first.
struct PlanesAt {
  const Planes* first;
  int64_t offset;
  INFER_DEVICE const std::byte* at(int i, int block, int block_bytes) const {
    return first->plane[i] + offset + static_cast<int64_t>(block) * block_bytes;
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
// --- Legacy types: blocks of 32, two runs

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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(0, block, 16))};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {kMin ? load_u32(p.at(1, block, 4)) : load_u16(p.at(1, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = levels_of_4_bits(word_of(raw.qs, i), run);
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(raw.dm), kMin ? -f32_from_f16(raw.dm >> 16) : 0.0f};
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(0, block, 16)), load_u32(p.at(1, block, 4))};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {kMin ? load_u32(p.at(2, block, 4)) : load_u16(p.at(2, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = levels_of_5_bits(word_of(raw.qs, i), raw.qh, run, i);
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(raw.dm), kMin ? -f32_from_f16(raw.dm >> 16) : 0.0f};
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 32) + run * 16)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {load_u16(p.at(1, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int /*run*/, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = word_of(raw.qs, i) ^ 0x80808080u;
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int /*second*/) {
    return {f32_from_f16(raw.d), 0.0f};
  }
};

// --- IQ4: nibbles that index a table of levels

/// Levels plus 128 of the low (half 0) or high nibbles.
INFER_DEVICE uint32_t iq4_run(uint32_t word, int half) {
  return iq4_half(iq4_levels<128>(word), iq4_levels<128>(word >> 16), half);
}

template <>
struct Runs<DType::kIQ4_NL> : LegacyRuns4<128, false> {
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = iq4_run(word_of(raw.qs, i), run);
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {load_readonly<uint2>(p.at(1, block, 8))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = iq4_run(word_of(raw.qs, i), run % 2);
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int /*second*/) {
    const int sc = scale_iq4_xs(raw.scales, run / 2);
    return {f32_from_f16(raw.scales.x) * static_cast<float>(sc), 0.0f};
  }
};

// --- K-quants: blocks of 256, sixteen runs

/// Scale and minimum of sub-block j. head: {d, dmin}, then 12 bytes as quant_blocks.h packs them.
INFER_DEVICE Scale scale_min_k(const uint4& head, int j) {
  const bool upper = j >= 4;
  return {f32_from_f16(head.x) * static_cast<float>(byte_of(scales_k(head, upper), j % 4)),
          f32_from_f16(head.x >> 16) * static_cast<float>(byte_of(minima_k(head, upper), j % 4))};
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 4 * 32 + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(1, block, 16))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int shift = run / 2 % 2 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = bits_of_bytes<4>(word_of(raw.qs, i), shift);
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 128) + run / 4 * 32 + run % 2 * 16),
            load_readonly<uint4>(p.at(1, block, 32) + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int /*run*/) {
    return {load_readonly<uint4>(p.at(2, block, 16))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int sub = run / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = bits_of_bytes<4>(word_of(raw.qs, i), sub % 2 * 4);
      u[i] = low | bits_of_bytes<1>(word_of(raw.qh, i), sub) << 4;
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    const int half = run / 8, at = run % 2 * 16;
    return {load_readonly<uint4>(p.at(0, block, 128) + half * 64 + run / 2 % 2 * 32 + at),
            load_readonly<uint4>(p.at(1, block, 64) + half * 32 + at)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int run) {
    const std::byte* scales = p.at(2, block, 16) + run;
    return {{load_u8(scales), load_u8(scales + kPartner)}, load_u16(p.at(3, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int part = run / 2 % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = bits_of_bytes<4>(word_of(raw.ql, i), part / 2 * 4);
      u[i] = low | bits_of_bytes<2>(word_of(raw.qh, i), 2 * part) << 4;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int second) {
    return {f32_from_f16(raw.d) * static_cast<float>(signed_byte(raw.scale[second], 0)), 0.0f};
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
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    return {load_readonly<uint4>(p.at(0, block, 64) + run / 8 * 32 + run % 2 * 16)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int run) {
    const std::byte* scales = p.at(1, block, 16) + run;
    return {{load_u8(scales), load_u8(scales + kPartner)}, load_u32(p.at(2, block, 4))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
    const int shift = run / 2 % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = bits_of_bytes<2>(word_of(raw.qs, i), shift);
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int /*run*/, int second) {
    return {f32_from_f16(raw.d) * static_cast<float>(raw.scale[second] & 15),
            f32_from_f16(raw.d >> 16) * static_cast<float>(raw.scale[second] >> 4)};
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
    uint32_t low, high, d;  ///< words of scales_q3_k(); both runs of a pair are of one quarter
  };
  static INFER_DEVICE Bytes load_bytes(const PlanesAt& p, int block, int run) {
    const int at = run % 2 * 16;
    return {load_readonly<uint4>(p.at(0, block, 64) + run / 8 * 32 + at),
            load_readonly<uint4>(p.at(1, block, 32) + at)};
  }
  static INFER_DEVICE Factors load_factors(const PlanesAt& p, int block, int run) {
    const std::byte* scales = p.at(2, block, 12);
    return {load_u32(scales + run / 4 % 2 * 4), load_u32(scales + 8), load_u16(p.at(3, block, 2))};
  }
  static INFER_DEVICE void levels(const Bytes& raw, int run, uint32_t (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = bits_of_bytes<2>(word_of(raw.qs, i), run / 2 % 4 * 2);
      u[i] = low | bits_of_bytes<1>(word_of(raw.hmask, i), run / 2) << 2;
    }
  }
  static INFER_DEVICE Scale scale(const Factors& raw, int run, int /*second*/) {
    const int sc = byte_of(scales_q3_k(raw.low, raw.high, run / 4), run % 4) - 32;
    return {f32_from_f16(raw.d) * static_cast<float>(sc), 0.0f};
  }
};

}  // namespace infer::cuda::gemm
