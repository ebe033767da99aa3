// Q8_0: one float scale per 32 elements of 8 bits. Orders and bounds: linear_fast.h.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

struct Q8_0 : panel::Q8_0<kPanelRows> {
  [[gnu::always_inline]] static __m256i quad(const uint8_t* unit, int /*sub*/, int i) {
    return load_u8x32(unit + kQsAt + 32 * i);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int /*sub*/) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_setzero_si256();
    return s;
  }
  static void decode(const uint8_t* unit, int /*sub*/, float* dst) {
    const __m256 d = load_f16x8(unit);
    for (int i = 0; i < 8; ++i) decode_signed_quad(quad(unit, 0, i), d, dst + 4 * i * kPanelRows);
  }
};

}  // namespace

void install_linear_q8_0(CpuKernels& table) { FastKernel<Q8_0>::install(table, DType::kQ8_0); }

}  // namespace infer::kern::avx2
