// Q2_K and Q3_K: super-blocks of 256 with 16 integer sub-scales. Orders and bounds: linear_fast.h.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// lo in the low 16 bits of each lane, hi in the high ones.
[[gnu::always_inline]] inline __m256i in_halves(__m256i lo, __m256i hi) {
  return _mm256_blend_epi16(lo, hi, 0xaa);
}

struct Q2_K : panel::Q2_K<kPanelRows> {
  static constexpr bool kSplitScale = true;

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

struct Q3_K : panel::Q3_K<kPanelRows> {
  static constexpr bool kSplitScale = true;

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

}  // namespace

void install_linear_k_low(CpuKernels& table) {
  FastKernel<Q2_K>::install(table, DType::kQ2_K);
  FastKernel<Q3_K>::install(table, DType::kQ3_K);
}

}  // namespace infer::kern::avx2
