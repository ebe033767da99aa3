// Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and IQ4_XS: super-blocks of 256 with integer sub-scales. Orders:
// linear_fast.h. A scale of all 32 elements is multiplied in f32, where the product of two integers
// below 2^24 in magnitude is exact; scales of 16 in i32.
#include "kernels/cpu/avx512/linear_fast.h"
#include "kernels/cpu/avx512/linear_install.h"
#include "kernels/cpu/avx512/linear_iq4.h"
#include "kernels/cpu/avx512/linear_levels.h"

namespace infer::kern::avx512 {
namespace {

/// Q4_K and Q5_K.
template <class Layout>
struct WithMin : Layout {
  static constexpr ScaleKind kScale = ScaleKind::kOne;
  static constexpr MinKind kMin = MinKind::kOne;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    nibble_levels(at + Layout::kQsAt, levels);
    if constexpr (Layout::kBits == 5) add_bit<4>(at + Layout::kHighAt, levels);
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int sub) {
    const uint8_t* at = Layout::sub_block(unit, sub);
    BlockScales s;
    s.d = load_f16x16(unit);
    s.mul = f32_from_i32(i32_from_u8x16(load_u8x16(at)));
    s.neg_min =
        _mm512_mul_ps(negated(load_f16x16(unit + Layout::kMinAt)),
                      f32_from_i32(i32_from_u8x16(load_u8x16(at + Layout::kSubMinAt))));  // exact
    return s;
  }
};

/// Q6_K and Q3_K: signed scales of 16, levels around kOffset = 2^kOffsetBits.
template <class Layout, int kOffsetBits>
struct Signed : Layout {
  static constexpr ScaleKind kScale = ScaleKind::kSplit;
  static constexpr MinKind kMin = MinKind::kNone;
  static_assert(Layout::kOffset == 1 << kOffsetBits);

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    if constexpr (Layout::kBits == 6) {
      nibble_levels(at + Layout::kQsAt, levels);
      pair_levels<4>(at + Layout::kHighAt, levels);
    } else {
      pair_levels<0>(at + Layout::kQsAt, levels);
      add_bit<2>(at + Layout::kHighAt, levels);
    }
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int sub) {
    const uint8_t* at = Layout::sub_block(unit, sub);
    BlockScales s;
    s.d = load_f16x16(unit);
    s.mul_lo = i32_from_i8x16(load_u8x16(at));
    s.mul_hi = i32_from_i8x16(load_u8x16(at + kPanelRows));
    const __m512i pairs = _mm512_slli_epi16(i16_pairs(s.mul_lo, s.mul_hi), kOffsetBits);
    s.offset = _mm512_sub_epi16(_mm512_setzero_si512(), pairs);  // at most 128 * 32
    return s;
  }
};

struct Q2_K : panel::Q2_K<kPanelRows> {
  static constexpr ScaleKind kScale = ScaleKind::kSplit;
  static constexpr MinKind kMin = MinKind::kSplit;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    pair_levels<0>(at + kQsAt, levels);
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int sub) {
    const uint8_t* at = sub_block(unit, sub);
    const __m512i nibble = _mm512_set1_epi32(15);
    const __m512i lo = i32_from_u8x16(load_u8x16(at));
    const __m512i hi = i32_from_u8x16(load_u8x16(at + kPanelRows));
    BlockScales s;
    s.d = load_f16x16(unit);
    s.neg_min = negated(load_f16x16(unit + kMinAt));
    s.mul_lo = _mm512_and_si512(lo, nibble);
    s.mul_hi = _mm512_and_si512(hi, nibble);
    s.mins = i16_pairs(_mm512_srli_epi32(lo, 4), _mm512_srli_epi32(hi, 4));
    return s;
  }
};

struct IQ4_XS : panel::IQ4_XS<kPanelRows> {
  static constexpr ScaleKind kScale = ScaleKind::kNone;  // multiplied into d, which is exact
  static constexpr MinKind kMin = MinKind::kNone;
  static constexpr int kOffset = kIq4Offset;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    iq4_levels(at + kQsAt, levels);
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int sub) {
    const __m512i sc = i32_from_i8x16(load_u8x16(sub_block(unit, sub)));
    BlockScales s;
    s.d = _mm512_mul_ps(load_f16x16(unit), f32_from_i32(sc));
    s.offset = _mm512_set1_epi16(-kOffset);
    return s;
  }
};

}  // namespace

void install_linear_k(CpuKernels& table) {
  FastKernel<WithMin<panel::Q4_K<kPanelRows>>>::install(table, DType::kQ4_K);
  FastKernel<WithMin<panel::Q5_K<kPanelRows>>>::install(table, DType::kQ5_K);
  FastKernel<Signed<panel::Q6_K<kPanelRows>, 5>>::install(table, DType::kQ6_K);
  FastKernel<Signed<panel::Q3_K<kPanelRows>, 2>>::install(table, DType::kQ3_K);
  FastKernel<Q2_K>::install(table, DType::kQ2_K);
  FastKernel<IQ4_XS>::install(table, DType::kIQ4_XS);
}

}  // namespace infer::kern::avx512
