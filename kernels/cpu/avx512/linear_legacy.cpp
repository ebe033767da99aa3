// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL: one float scale (and minimum) per 32 elements. Orders:
// linear_fast.h.
#include "kernels/cpu/avx512/linear_fast.h"
#include "kernels/cpu/avx512/linear_install.h"
#include "kernels/cpu/avx512/linear_iq4.h"
#include "kernels/cpu/avx512/linear_levels.h"

namespace infer::kern::avx512 {
namespace {

template <class Layout>
struct LowBits : Layout {
  static constexpr ScaleKind kScale = ScaleKind::kNone;
  static constexpr MinKind kMin = Layout::kHasMin ? MinKind::kOne : MinKind::kNone;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    nibble_levels(at + Layout::kQsAt, levels);
    if constexpr (Layout::kBits == 5) add_bit<4>(at + Layout::kHighAt, levels);
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int /*sub*/) {
    BlockScales s;
    s.d = load_f16x16(unit);
    s.offset = _mm512_set1_epi16(-Layout::kOffset);
    if constexpr (Layout::kHasMin) s.neg_min = load_f16x16(unit + Layout::kMinAt);
    return s;
  }
};

struct Q8_0 : panel::Q8_0<kPanelRows> {
  static constexpr ScaleKind kScale = ScaleKind::kNone;
  static constexpr MinKind kMin = MinKind::kNone;
  static constexpr int kOffset = 128;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    unrolled<8>([&](auto quad) __attribute__((always_inline)) {
      constexpr int i = decltype(quad)::value;
      levels[i] = _mm512_xor_si512(load_u8x64(at + kQsAt + 64 * i), _mm512_set1_epi8(-128));
    });
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int /*sub*/) {
    BlockScales s;
    s.d = load_f16x16(unit);
    s.offset = _mm512_set1_epi16(-kOffset);
    return s;
  }
};

struct IQ4_NL : panel::IQ4_NL<kPanelRows> {
  static constexpr ScaleKind kScale = ScaleKind::kNone;
  static constexpr MinKind kMin = MinKind::kNone;
  static constexpr int kOffset = kIq4Offset;

  [[gnu::always_inline]] static void levels(const uint8_t* at, __m512i* levels) {
    iq4_levels(at + kQsAt, levels);
  }
  [[gnu::always_inline]] static BlockScales scales(const uint8_t* unit, int /*sub*/) {
    BlockScales s;
    s.d = load_f16x16(unit);
    s.offset = _mm512_set1_epi16(-kOffset);
    return s;
  }
};

}  // namespace

void install_linear_legacy(CpuKernels& table) {
  FastKernel<LowBits<panel::Q4_0<kPanelRows>>>::install(table, DType::kQ4_0);
  FastKernel<LowBits<panel::Q4_1<kPanelRows>>>::install(table, DType::kQ4_1);
  FastKernel<LowBits<panel::Q5_0<kPanelRows>>>::install(table, DType::kQ5_0);
  FastKernel<LowBits<panel::Q5_1<kPanelRows>>>::install(table, DType::kQ5_1);
  FastKernel<Q8_0>::install(table, DType::kQ8_0);
  FastKernel<IQ4_NL>::install(table, DType::kIQ4_NL);
}

}  // namespace infer::kern::avx512
