// Q4_K, Q5_K, Q6_K: super-blocks of 256 with integer sub-scales. Orders and bounds: linear_fast.h.
// The 6-bit scales and minima of Q4_K and Q5_K are unpacked to bytes (1.028 and 1.023 times the
// file's size); Q6_K keeps its size. A unit holds eight super-blocks, one a lane: d f16 [8], dmin
// f16 [8] if any, then eight sub-blocks of 32 k, each in the order in which it is read, so that
// memory is one ascending stream:
//   Q4_K: scales u8 [8], minima u8 [8], levels [128];   Q5_K: scales, minima, fifth bits [32],
//   levels [128]; Q6_K: scales i8 [2][8], upper two bits [64], levels [128].
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// 32 levels' low nibbles, found at `shift` in qs[0..31], as quads: element e with e + 16 in a
/// byte.
void pack_nibbles(const uint8_t* qs, int shift, int lane, uint8_t* at) {
  constexpr uint32_t kLow = 0x0f0f0f0fu;
  for (int i = 0; i < 4; ++i) {
    const uint32_t lo = (load_u32(qs + 4 * i) >> shift) & kLow;
    const uint32_t hi = (load_u32(qs + 16 + 4 * i) >> shift) & kLow;
    store_u32(at + 32 * i + 4 * lane, lo | (hi << 4));
  }
}

/// Q4_K and Q5_K.
template <class BlockT, int kBitsPerLevel>
struct WithMin {
  using Block = BlockT;
  static constexpr int kSubs = 8, kBits = kBitsPerLevel, kOffset = 0;
  static constexpr bool kHasMin = true, kSplitScale = false;
  static constexpr int64_t kMinAt = 16, kHeadBytes = 32;
  static constexpr int64_t kSubMinAt = 8, kHighAt = 16,
                           kQsAt = kHighAt + (kBits == 5 ? 32 : 0);  // in a sub-block
  static constexpr int64_t kSubBytes = kQsAt + 128, kUnitBytes = kHeadBytes + 8 * kSubBytes;

  template <class Byte>
  [[gnu::always_inline]] static Byte* sub_block(Byte* unit, int sub) {
    return unit + kHeadBytes + sub * kSubBytes;
  }

  /// Where the file keeps the 6-bit scale and minimum of sub-block j: low six bits of bytes j and j
  /// + 4 for j < 4; after that a nibble of byte j + 4 with two more bits on top of bytes j - 4 and
  /// j.
  static void pack_scales(const uint8_t* s, int lane, uint8_t* unit) {
    for (int j = 0; j < 4; ++j) {
      uint8_t* front = sub_block(unit, j) + lane;
      uint8_t* back = sub_block(unit, j + 4) + lane;
      front[0] = s[j] & 63;
      front[kSubMinAt] = s[j + 4] & 63;
      back[0] = static_cast<uint8_t>((s[j + 8] & 15) | ((s[j] >> 6) << 4));
      back[kSubMinAt] = static_cast<uint8_t>((s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4));
    }
  }
  static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16(b.d, lane, unit);
    pack_f16(b.dmin, lane, unit + kMinAt);
    pack_scales(b.scales, lane, unit);
    for (int sub = 0; sub < kSubs; ++sub) {
      if constexpr (kBits == 5) pack_bit(b.qh, sub, lane, sub_block(unit, sub) + kHighAt);
      pack_nibbles(b.qs + sub / 2 * 32, (sub & 1) * 4, lane, sub_block(unit, sub) + kQsAt);
    }
  }
  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int sub, __m256i& lo,
                                            __m256i& hi) {
    nibble_levels(sub_block(unit, sub) + kQsAt, kVec, lo, hi);
    if constexpr (kBits == 5) {
      add_bit<kVec, 4>(load_u8x32(sub_block(unit, sub) + kHighAt), lo, hi);
    }
  }
  [[gnu::always_inline]] static __m256 neg_min(const uint8_t* unit, int sub) {
    return _mm256_mul_ps(negated(load_f16x8(unit + kMinAt)),
                         f32_from_u8x8(load_u8x8(sub_block(unit, sub) + kSubMinAt)));  // exact
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int sub) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = neg_min(unit, sub);
    s.mul_lo = s.mul_hi = twice_u8(load_u8x8(sub_block(unit, sub)));
    return s;
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    AffineScales s;
    s.scale_lo = s.scale_hi =
        _mm256_mul_ps(load_f16x8(unit), f32_from_u8x8(load_u8x8(sub_block(unit, sub))));  // exact
    s.offset_lo = s.offset_hi = neg_min(unit, sub);
    decode_unsigned<WithMin>(unit, sub, s, dst);
  }
};
using Q4_K = WithMin<BlockQ4_K, 4>;
using Q5_K = WithMin<BlockQ5_K, 5>;
static_assert(Q4_K::kUnitBytes == 1184 && Q5_K::kUnitBytes == 1440);

struct Q6_K {
  using Block = BlockQ6_K;
  static constexpr int kSubs = 8, kBits = 6, kOffset = 32;
  static constexpr bool kHasMin = false, kSplitScale = true;
  static constexpr int64_t kHeadBytes = 16, kHighAt = 16,
                           kQsAt = 80;  // the last two in a sub-block
  static constexpr int64_t kSubBytes = kQsAt + 128, kUnitBytes = kHeadBytes + 8 * kSubBytes;

  template <class Byte>
  [[gnu::always_inline]] static Byte* sub_block(Byte* unit, int sub) {
    return unit + kHeadBytes + sub * kSubBytes;
  }

  /// In the file each half of 128 elements has 64 bytes of nibbles (parts 0, 1 low; 2, 3 high) and
  /// 32 bytes of upper bits (two a part). Here bits 2i, 2i + 1 of a byte belong to quad i,
  /// quads 4..7 in the second vector.
  static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16(b.d, lane, unit);
    for (int sub = 0; sub < kSubs; ++sub) {
      const int part = sub & 3;
      uint8_t* at = sub_block(unit, sub);
      at[lane] = static_cast<uint8_t>(b.scales[2 * sub]);
      at[8 + lane] = static_cast<uint8_t>(b.scales[2 * sub + 1]);
      const uint8_t* ql = b.ql + sub / 4 * 64 + (part & 1) * 32;
      const uint8_t* qh = b.qh + sub / 4 * 32;
      pack_nibbles(ql, part / 2 * 4, lane, at + kQsAt);
      pack_bit_pairs(qh, 2 * part, lane, at + kHighAt);
    }
  }
  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int sub, __m256i& lo,
                                            __m256i& hi) {
    const uint8_t* at = sub_block(unit, sub);
    nibble_levels(at + kQsAt, kVec, lo, hi);
    lo = _mm256_or_si256(lo, bit_pair<kVec, 4>(load_u8x32(at + kHighAt)));
    hi = _mm256_or_si256(hi, bit_pair<kVec, 4>(load_u8x32(at + kHighAt + 32)));
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int sub) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = twice_i8(load_u8x8(sub_block(unit, sub)));
    s.mul_hi = twice_i8(load_u8x8(sub_block(unit, sub) + 8));
    return s;
  }
  /// 32 * (sc_lo * sum of the first 16 + sc_hi * sum of the last 16).
  [[gnu::always_inline]] static __m256i offset_sum(const FastScales& s, __m256i half_sums) {
    const __m256i pair = _mm256_blend_epi16(s.mul_lo, s.mul_hi, 0xaa);
    return _mm256_slli_epi32(_mm256_madd_epi16(half_sums, pair), 5);
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    const __m256 d = load_f16x8(unit);
    const __m256 centre = _mm256_set1_ps(-32.0f);
    const uint8_t* sc = sub_block(unit, sub);
    AffineScales s;  // all products exact
    s.scale_lo = _mm256_mul_ps(d, f32_from_i8x8(load_u8x8(sc)));
    s.scale_hi = _mm256_mul_ps(d, f32_from_i8x8(load_u8x8(sc + 8)));
    s.offset_lo = _mm256_mul_ps(s.scale_lo, centre);
    s.offset_hi = _mm256_mul_ps(s.scale_hi, centre);
    decode_unsigned<Q6_K>(unit, sub, s, dst);
  }
};
static_assert(Q6_K::kUnitBytes == 8 * sizeof(BlockQ6_K));

}  // namespace

void install_linear_k(CpuKernels& table) {
  FastKernel<Q4_K>::install(table, DType::kQ4_K);
  FastKernel<Q5_K>::install(table, DType::kQ5_K);
  FastKernel<Q6_K>::install(table, DType::kQ6_K);
}

}  // namespace infer::kern::avx2
