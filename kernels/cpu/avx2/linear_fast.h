#pragma once

// Panels of eight outputs (lanes along n) times 8-bit activations, for every quantised type.
//
// Panels and their units: kernels/cpu/panel.h.
//
// Reduction order, the same for every m, n range, panel position and thread: one chain per output
// over the blocks of 32 in sequence. A block's integer sum  t = sum_i sc[i / 16] * q_w[i] * q_x[i]
// is exact (|t| < 2^24, so in f32 too);
//   acc = fma(f32(t), d_w * d_x, acc);  and for formats with a minimum  acc = fma(-m_w, s_x, acc),
// or with minima of 16 elements, whose integer sum  u = mn[0] * h_x[0] + mn[1] * h_x[1]  is exact,
//   acc = fma(f32(u), -m_w * d_x, acc).
//
// Exactness of the 16-bit sums (u8 levels times i8 activations in -127..127, two products a lane
// and step):
//   2 bits: 4 steps of 2 * 3 * 127 = 3048;  3 bits: 4 steps of 2 * 7 * 127 = 7112;
//   4 bits: 8 steps of 2 * 15 * 127 = 30480;  5 bits: 4 steps of 2 * 31 * 127 = 31496;
//   6 bits: 2 steps of 2 * 63 * 127 = 32004;  8 bits (signed): |w| up to 128, 1 step of
//   2 * 128 * 127 = 32512; all < 32768.
// Several rows (linear_gemm.h) start at -c times the activations, so that only the last value of a
// lane counts, 16-bit additions being exact modulo 2^16:  |q - c| <= c, hence 16 * 16 * 127 = 32512
// for 5 bits around 16 in one sum, 8 * 32 * 127 = 32512 for 6 bits around 32 in each of two; a
// single product of two stays below 2 * 63 * 127, so vpmaddubsw does not saturate.
#include "kernels/cpu/avx2/linear_act.h"
#include "kernels/cpu/avx2/linear_gemm.h"
#include "kernels/cpu/avx2/linear_gemv.h"
#include "kernels/cpu/avx2/linear_precise.h"
#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx2 {

/// What 32 elements of a panel need besides their levels.
struct FastScales {
  __m256 d;        ///< factor of the integer sum
  __m256 neg_min;  ///< -m_w, unused without a minimum
  __m256i mul_lo;  ///< i16, twice in each 32-bit lane: integer scale of quads 0..3
  __m256i mul_hi;  ///< of quads 4..7
};

template <class T>
struct FastKernel {
  static int64_t packed_bytes(int64_t n, int64_t k) {
    return (n + kPanelRows - 1) / kPanelRows * panel::bytes_of_panel<T>(k);
  }
  static void pack(const std::byte* file, int64_t n, int64_t k, int64_t n_begin, int64_t n_end,
                   std::byte* packed) {
    panel::pack_rows<T, kPanelRows>(file, n, k, n_begin, n_end, packed);
  }

  static void run(const LinearArgs& a) {
    if (a.m == 1) return gemv<T>(a);
    Gemm<T>::run(a);
  }

  static void install(CpuKernels& table, DType type) {
    for (int mode = 0; mode < kActModes; ++mode) {
      const bool fast = mode == static_cast<int>(ActMode::kFast);
      LinearKernel& t = table.linear[mode][static_cast<int>(type)];
      t.n_align = kPanelRows;
      t.file_layout = false;
      t.packed_bytes = packed_bytes;
      t.pack = pack;
      t.act_bytes = fast ? act_bytes_q8 : act_bytes_f32;
      t.prepare = fast ? prepare_q8 : prepare_f32;
      t.scratch_bytes = fast ? Gemm<T>::scratch_bytes : precise_scratch_bytes;
      t.run = fast ? run : run_precise<T>;
    }
  }
};

/// Decodes 32 elements of a panel: w = fma(scale, level, offset), dst [32][kPanelRows]. lo / hi:
/// quads 0..3 / 4..7.
struct AffineScales {
  __m256 scale_lo, offset_lo, scale_hi, offset_hi;
};
[[gnu::always_inline]] inline void decode_quad(__m256i bytes, __m256 scale, __m256 offset,
                                               float* dst) {
  const __m256i low = _mm256_set1_epi32(0xff);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256i level = _mm256_and_si256(_mm256_srli_epi32(bytes, 8 * j), low);
    _mm256_storeu_ps(dst + j * kPanelRows,
                     _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(level), offset));
  }
}
template <class T>
[[gnu::always_inline]] inline void decode_unsigned(const uint8_t* unit, int sub,
                                                   const AffineScales& s, float* dst) {
  unrolled<4>([&](auto vec) __attribute__((always_inline)) {
    constexpr int kVec = decltype(vec)::value;
    __m256i lo, hi;
    T::template levels<kVec>(unit, sub, lo, hi);
    decode_quad(lo, s.scale_lo, s.offset_lo, dst + 4 * kVec * kPanelRows);
    decode_quad(hi, s.scale_hi, s.offset_hi, dst + (16 + 4 * kVec) * kPanelRows);
  });
}

}  // namespace infer::kern::avx2
