// Q4_K, Q5_K, Q6_K: super-blocks of 256 with integer sub-scales. Orders and bounds: linear_fast.h.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// Q4_K and Q5_K.
template <class Layout>
struct WithMin : Layout {
  using Layout::kBits, Layout::kHighAt, Layout::kMinAt, Layout::kQsAt, Layout::kSubMinAt,
      Layout::sub_block;
  static constexpr bool kSplitScale = false;

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
using Q4_K = WithMin<panel::Q4_K<kPanelRows>>;
using Q5_K = WithMin<panel::Q5_K<kPanelRows>>;

struct Q6_K : panel::Q6_K<kPanelRows> {
  static constexpr bool kSplitScale = true;

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

}  // namespace

void install_linear_k(CpuKernels& table) {
  FastKernel<Q4_K>::install(table, DType::kQ4_K);
  FastKernel<Q5_K>::install(table, DType::kQ5_K);
  FastKernel<Q6_K>::install(table, DType::kQ6_K);
}

}  // namespace infer::kern::avx2
