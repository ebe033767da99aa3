// IQ4_NL and IQ4_XS: 4-bit indices into a table of 16 signed levels, looked up with a byte shuffle
// and then treated as signed 8-bit levels. Orders and bounds: linear_fast.h; the levels are in
// -127..113. The integer scale of IQ4_XS is multiplied into d, which is exact.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// Signed levels of quad i (0..7); quads i and i + 4 share a vector at `at`.
[[gnu::always_inline]] inline __m256i looked_up(const uint8_t* at, int i) {
  constexpr const int8_t(&l)[16] = kIq4Levels;
  const __m256i table = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11], l[12],
                    l[13], l[14], l[15]));
  __m256i v = load_u8x32(at + 32 * (i & 3));
  if (i >= 4) v = _mm256_srli_epi16(v, 4);
  return _mm256_shuffle_epi8(table, _mm256_and_si256(v, _mm256_set1_epi8(15)));
}

struct IQ4_NL : panel::IQ4_NL<kPanelRows> {
  static constexpr int kBits = 8;  // as looked up
  [[gnu::always_inline]] static __m256i quad(const uint8_t* unit, int /*sub*/, int i) {
    return looked_up(unit + kQsAt, i);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int /*sub*/) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_setzero_si256();
    return s;
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    const __m256 d = load_f16x8(unit);
    for (int i = 0; i < 8; ++i) decode_signed_quad(quad(unit, sub, i), d, dst + 4 * i * kPanelRows);
  }
};

struct IQ4_XS : panel::IQ4_XS<kPanelRows> {
  static constexpr int kBits = 8;  // as looked up
  [[gnu::always_inline]] static __m256i quad(const uint8_t* unit, int sub, int i) {
    return looked_up(sub_block(unit, sub) + kQsAt, i);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int sub) {
    FastScales s;
    s.d = _mm256_mul_ps(load_f16x8(unit), f32_from_i8x8(load_u8x8(sub_block(unit, sub))));
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_setzero_si256();
    return s;
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    const __m256 d = scales(unit, sub).d;
    for (int i = 0; i < 8; ++i) decode_signed_quad(quad(unit, sub, i), d, dst + 4 * i * kPanelRows);
  }
};

}  // namespace

void install_linear_iq4(CpuKernels& table) {
  FastKernel<IQ4_NL>::install(table, DType::kIQ4_NL);
  FastKernel<IQ4_XS>::install(table, DType::kIQ4_XS);
}

}  // namespace infer::kern::avx2
