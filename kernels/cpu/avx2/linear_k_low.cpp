// Q2_K and Q3_K: super-blocks of 256 with 16 integer sub-scales. Orders and bounds: linear_fast.h.
// A unit holds eight super-blocks, one a lane, and eight sub-blocks of 32 k in the order in which
// they are read:
//   Q2_K: d f16 [8], dmin f16 [8]; then scale (low nibble) and minimum (high) u8 [2][8], levels
//   [64]: the file's size. Q3_K: d f16 [8]; then scales i8 [2][8], third bits [32], levels [64]:
//   1.036 times the file's size.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// In the file each half of 128 elements has 32 bytes of levels, two bits a part of 32 elements.
void pack_levels(const uint8_t* qs, int sub, int lane, uint8_t* at) {
  pack_bit_pairs(qs + sub / 4 * 32, 2 * (sub & 3), lane, at);
}

/// lo in the low 16 bits of each lane, hi in the high ones.
[[gnu::always_inline]] inline __m256i in_halves(__m256i lo, __m256i hi) {
  return _mm256_blend_epi16(lo, hi, 0xaa);
}

struct Q2_K {
  using Block = BlockQ2_K;
  static constexpr int kSubs = 8, kBits = 2, kOffset = 0;
  [[maybe_unused]] static constexpr bool kHasMin = true;
  static constexpr bool kSplitScale = true;
  static constexpr int64_t kMinAt = 16, kHeadBytes = 32;
  static constexpr int64_t kQsAt = 16, kSubBytes = kQsAt + 64,
                           kUnitBytes = kHeadBytes + 8 * kSubBytes;

  template <class Byte>
  [[gnu::always_inline]] static Byte* sub_block(Byte* unit, int sub) {
    return unit + kHeadBytes + sub * kSubBytes;
  }
  static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16(b.d, lane, unit);
    pack_f16(b.dmin, lane, unit + kMinAt);
    for (int sub = 0; sub < kSubs; ++sub) {
      uint8_t* at = sub_block(unit, sub);
      at[lane] = b.scales[2 * sub];
      at[8 + lane] = b.scales[2 * sub + 1];
      pack_levels(b.qs, sub, lane, at + kQsAt);
    }
  }
  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int sub, __m256i& lo,
                                            __m256i& hi) {
    const uint8_t* at = sub_block(unit, sub) + kQsAt;
    lo = bit_pair<kVec, 0>(load_u8x32(at));
    hi = bit_pair<kVec, 0>(load_u8x32(at + 32));
  }
  /// Scales or minima of both halves: bytes 0..7 of the first, 8..15 of the second.
  [[gnu::always_inline]] static __m128i scale_bytes(const uint8_t* unit, int sub) {
    return _mm_and_si128(load_u8x16(sub_block(unit, sub)), _mm_set1_epi8(15));
  }
  [[gnu::always_inline]] static __m128i min_bytes(const uint8_t* unit, int sub) {
    return _mm_and_si128(_mm_srli_epi16(load_u8x16(sub_block(unit, sub)), 4), _mm_set1_epi8(15));
  }
  [[gnu::always_inline]] static __m128i second(__m128i bytes) { return _mm_srli_si128(bytes, 8); }

  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int sub) {
    const __m128i sc = scale_bytes(unit, sub);
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = negated(load_f16x8(unit + kMinAt));
    s.mul_lo = twice_u8(sc);
    s.mul_hi = twice_u8(second(sc));
    return s;
  }
  [[gnu::always_inline]] static __m256i mins(const uint8_t* unit, int sub) {
    const __m128i mn = min_bytes(unit, sub);
    return in_halves(twice_u8(mn), twice_u8(second(mn)));
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    const __m256 d = load_f16x8(unit), neg_min = negated(load_f16x8(unit + kMinAt));
    const __m128i sc = scale_bytes(unit, sub), mn = min_bytes(unit, sub);
    AffineScales s;  // all products exact
    s.scale_lo = _mm256_mul_ps(d, f32_from_u8x8(sc));
    s.scale_hi = _mm256_mul_ps(d, f32_from_u8x8(second(sc)));
    s.offset_lo = _mm256_mul_ps(neg_min, f32_from_u8x8(mn));
    s.offset_hi = _mm256_mul_ps(neg_min, f32_from_u8x8(second(mn)));
    decode_unsigned<Q2_K>(unit, sub, s, dst);
  }
};
static_assert(Q2_K::kUnitBytes == 8 * sizeof(BlockQ2_K));

struct Q3_K {
  using Block = BlockQ3_K;
  static constexpr int kSubs = 8, kBits = 3, kOffset = 4;
  static constexpr bool kHasMin = false, kSplitScale = true;
  static constexpr int64_t kHeadBytes = 16;
  static constexpr int64_t kHighAt = 16, kQsAt = kHighAt + 32, kSubBytes = kQsAt + 64,
                           kUnitBytes = kHeadBytes + 8 * kSubBytes;

  template <class Byte>
  [[gnu::always_inline]] static Byte* sub_block(Byte* unit, int sub) {
    return unit + kHeadBytes + sub * kSubBytes;
  }
  /// Where the file keeps the 6-bit scale of half sub-block j: a nibble of byte j % 8 (the low one
  /// for j < 8), the upper two bits in byte 8 + j % 4 at bit 2 * (j / 4). It stands for sc - 32.
  static uint8_t scale_of(const uint8_t* s, int j) {
    const int low = (s[j & 7] >> (4 * (j / 8))) & 15;
    const int high = (s[8 + (j & 3)] >> (2 * (j / 4))) & 3;
    return static_cast<uint8_t>((low | (high << 4)) - 32);
  }
  static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16(b.d, lane, unit);
    for (int sub = 0; sub < kSubs; ++sub) {
      uint8_t* at = sub_block(unit, sub);
      at[lane] = scale_of(b.scales, 2 * sub);
      at[8 + lane] = scale_of(b.scales, 2 * sub + 1);
      pack_bit(b.hmask, sub, lane, at + kHighAt);
      pack_levels(b.qs, sub, lane, at + kQsAt);
    }
  }
  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int sub, __m256i& lo,
                                            __m256i& hi) {
    const uint8_t* at = sub_block(unit, sub);
    lo = bit_pair<kVec, 0>(load_u8x32(at + kQsAt));
    hi = bit_pair<kVec, 0>(load_u8x32(at + kQsAt + 32));
    add_bit<kVec, 2>(load_u8x32(at + kHighAt), lo, hi);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int sub) {
    const uint8_t* sc = sub_block(unit, sub);
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = twice_i8(load_u8x8(sc));
    s.mul_hi = twice_i8(load_u8x8(sc + 8));
    return s;
  }
  /// 4 * (sc_lo * sum of the first 16 + sc_hi * sum of the last 16).
  [[gnu::always_inline]] static __m256i offset_sum(const FastScales& s, __m256i half_sums) {
    return _mm256_slli_epi32(_mm256_madd_epi16(half_sums, in_halves(s.mul_lo, s.mul_hi)), 2);
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    const __m256 d = load_f16x8(unit), centre = _mm256_set1_ps(-static_cast<float>(kOffset));
    const uint8_t* sc = sub_block(unit, sub);
    AffineScales s;  // all products exact
    s.scale_lo = _mm256_mul_ps(d, f32_from_i8x8(load_u8x8(sc)));
    s.scale_hi = _mm256_mul_ps(d, f32_from_i8x8(load_u8x8(sc + 8)));
    s.offset_lo = _mm256_mul_ps(s.scale_lo, centre);
    s.offset_hi = _mm256_mul_ps(s.scale_hi, centre);
    decode_unsigned<Q3_K>(unit, sub, s, dst);
  }
};
static_assert(Q3_K::kUnitBytes == 912);

}  // namespace

void install_linear_k_low(CpuKernels& table) {
  FastKernel<Q2_K>::install(table, DType::kQ2_K);
  FastKernel<Q3_K>::install(table, DType::kQ3_K);
}

}  // namespace infer::kern::avx2
