// Q4_0, Q4_1, Q5_0, Q5_1: one float scale (and minimum) per 32 elements. Orders and bounds:
// linear_fast.h.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

template <class Layout>
struct LowBits : Layout {
  using Layout::kBits, Layout::kHasMin, Layout::kHighAt, Layout::kMinAt, Layout::kOffset,
      Layout::kQsAt;
  static constexpr bool kSplitScale = false;

  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int /*sub*/, __m256i& lo,
                                            __m256i& hi) {
    nibble_levels(unit + kQsAt, kVec, lo, hi);
    if constexpr (kBits == 5) add_bit<kVec, 4>(load_u8x32(unit + kHighAt), lo, hi);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int /*sub*/) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = kHasMin ? load_f16x8(unit + kMinAt) : _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_set1_epi16(1);
    return s;
  }
  [[gnu::always_inline]] static __m256i offset_sum(const FastScales& /*s*/, __m256i half_sums) {
    return _mm256_madd_epi16(half_sums, _mm256_set1_epi16(kOffset));
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    AffineScales s;
    s.scale_lo = s.scale_hi = load_f16x8(unit);
    s.offset_lo = kHasMin ? load_f16x8(unit + kMinAt)
                          : _mm256_mul_ps(s.scale_lo, _mm256_set1_ps(-static_cast<float>(kOffset)));
    s.offset_hi = s.offset_lo;
    decode_unsigned<LowBits>(unit, sub, s, dst);
  }
};
using Q4_0 = LowBits<panel::Q4_0<kPanelRows>>;
using Q4_1 = LowBits<panel::Q4_1<kPanelRows>>;
using Q5_0 = LowBits<panel::Q5_0<kPanelRows>>;
using Q5_1 = LowBits<panel::Q5_1<kPanelRows>>;

}  // namespace

void install_linear_legacy(CpuKernels& table) {
  FastKernel<Q4_0>::install(table, DType::kQ4_0);
  FastKernel<Q4_1>::install(table, DType::kQ4_1);
  FastKernel<Q5_0>::install(table, DType::kQ5_0);
  FastKernel<Q5_1>::install(table, DType::kQ5_1);
}

}  // namespace infer::kern::avx2
