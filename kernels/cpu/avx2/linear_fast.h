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
#include "kernels/cpu/avx2/linear_act.h"
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

/// Types with a minimum for each half of 32 elements: mins() gives them as i16 pairs a lane, and
/// scales().neg_min is their common factor, negated.
template <class T>
concept SplitMin = requires(const uint8_t* unit) {
  T::mins(unit, 0);
};

[[gnu::always_inline]] inline const ActBlock* act_row(const ActBlock* x, int64_t stride_bytes,
                                                      int r) {
  return reinterpret_cast<const ActBlock*>(reinterpret_cast<const std::byte*>(x) +
                                           r * stride_bytes);
}

/// t[r] = integer sums of one block, for unsigned levels. kStep vectors (of two quads each) fit
/// into 16 bits.
template <class T, int kRows>
[[gnu::always_inline]] inline void sums_unsigned(const uint8_t* unit, int sub, const FastScales& s,
                                                 const ActBlock* x, int64_t x_stride, __m256i* t) {
  constexpr int kStep = T::kBits <= 4 ? 4 : 2;
  unrolled<4 / kStep>([&](auto step) __attribute__((always_inline)) {
    __m256i lo16[kRows], hi16[kRows];
    unrolled<kStep>([&](auto vec) __attribute__((always_inline)) {
      constexpr int kVec = decltype(step)::value * kStep + decltype(vec)::value;
      constexpr bool kFirst = decltype(vec)::value == 0;
      __m256i lo, hi;
      T::template levels<kVec>(unit, sub, lo, hi);
      unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
        constexpr int r = decltype(row)::value;
        const int8_t* q = act_row(x, x_stride, r)->q;
        const __m256i a = _mm256_maddubs_epi16(lo, broadcast_u32(q + 4 * kVec));
        const __m256i b = _mm256_maddubs_epi16(hi, broadcast_u32(q + 16 + 4 * kVec));
        if constexpr (T::kSplitScale) {
          lo16[r] = kFirst ? a : _mm256_add_epi16(lo16[r], a);
          hi16[r] = kFirst ? b : _mm256_add_epi16(hi16[r], b);
          settle(hi16[r]);
        } else {
          const __m256i ab = _mm256_add_epi16(a, b);
          lo16[r] = kFirst ? ab : _mm256_add_epi16(lo16[r], ab);
        }
        settle(lo16[r]);
      });
    });
    unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
      constexpr int r = decltype(row)::value;
      __m256i part = _mm256_madd_epi16(lo16[r], s.mul_lo);
      if constexpr (T::kSplitScale)
        part = _mm256_add_epi32(part, _mm256_madd_epi16(hi16[r], s.mul_hi));
      t[r] = decltype(step)::value == 0 ? part : _mm256_add_epi32(t[r], part);
      settle(t[r]);
    });
  });
  if constexpr (T::kOffset != 0) {  // levels stand for q - kOffset
    unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
      constexpr int r = decltype(row)::value;
      t[r] = _mm256_sub_epi32(t[r], T::offset_sum(s, broadcast_u32(act_row(x, x_stride, r)->h)));
    });
  }
}

/// The same for signed 8-bit levels: |w| * (x with the sign of w).
template <class T, int kRows>
[[gnu::always_inline]] inline void sums_signed(const uint8_t* unit, int sub, const ActBlock* x,
                                               int64_t x_stride, __m256i* t) {
  const __m256i ones = _mm256_set1_epi16(1);
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int kQuad = decltype(quad)::value;
    const __m256i w = T::quad(unit, sub, kQuad);
    const __m256i w_abs = _mm256_abs_epi8(w);  // -128 becomes 128, as an unsigned byte
    unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
      constexpr int r = decltype(row)::value;
      const __m256i xs = _mm256_sign_epi8(broadcast_u32(act_row(x, x_stride, r)->q + 4 * kQuad), w);
      const __m256i part = _mm256_madd_epi16(_mm256_maddubs_epi16(w_abs, xs), ones);
      t[r] = kQuad == 0 ? part : _mm256_add_epi32(t[r], part);
      settle(t[r]);
    });
  });
}

/// kRows activation rows against one panel. out: element (row 0, first output of the panel);
/// n_valid 1..8 outputs exist.
template <class T, int kRows>
void fast_tile(const uint8_t* panel, int64_t n_unit, const ActBlock* x, int64_t x_stride,
               float* out, int64_t out_stride, int64_t n_valid) {
  __m256 acc[kRows];
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    acc[decltype(row)::value] = _mm256_setzero_ps();
  });
  for (int64_t u = 0; u < n_unit; ++u, panel += T::kUnitBytes) {
    for (int sub = 0; sub < T::kSubs; ++sub, ++x) {
      const FastScales s = T::scales(panel, sub);
      __m256i t[kRows];
      if constexpr (T::kBits == 8) {
        sums_signed<T, kRows>(panel, sub, x, x_stride, t);
      } else {
        sums_unsigned<T, kRows>(panel, sub, s, x, x_stride, t);
      }
      unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
        constexpr int r = decltype(row)::value;
        const ActBlock* xr = act_row(x, x_stride, r);
        const __m256 scale = _mm256_mul_ps(s.d, _mm256_broadcast_ss(&xr->d));
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[r]), scale, acc[r]);
        if constexpr (SplitMin<T>) {
          const __m256i m = _mm256_madd_epi16(T::mins(panel, sub), broadcast_u32(xr->h));
          const __m256 factor = _mm256_mul_ps(s.neg_min, _mm256_broadcast_ss(&xr->d));
          acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(m), factor, acc[r]);
        } else if constexpr (T::kHasMin) {
          acc[r] = _mm256_fmadd_ps(s.neg_min, _mm256_broadcast_ss(&xr->s), acc[r]);
        }
      });
    }
  }
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    store_lanes(out + decltype(row)::value * out_stride, acc[decltype(row)::value], n_valid);
  });
}

template <class T>
struct FastKernel {
  static int64_t packed_bytes(int64_t n, int64_t k) {
    return (n + kPanelRows - 1) / kPanelRows * panel::bytes_of_panel<T>(k);
  }
  static int64_t no_scratch(int64_t) { return 0; }
  static void pack(const std::byte* file, int64_t n, int64_t k, int64_t n_begin, int64_t n_end,
                   std::byte* packed) {
    panel::pack_rows<T, kPanelRows>(file, n, k, n_begin, n_end, packed);
  }

  template <int kRows>
  static void tile(const LinearArgs& a, int64_t j, int64_t r) {
    const uint8_t* panel =
        reinterpret_cast<const uint8_t*>(a.w) + j / kPanelRows * panel::bytes_of_panel<T>(a.k);
    const ActBlock* x = reinterpret_cast<const ActBlock*>(a.act + r * a.act_stride);
    fast_tile<T, kRows>(panel, a.k / (32 * T::kSubs), x, a.act_stride,
                        a.out + r * a.out_stride + (j - a.n_begin), a.out_stride,
                        min_of(kPanelRows, a.n_end - j));
  }

  /// Activations are taken in blocks of rows that stay in the second-level cache while all panels
  /// pass by.
  static void run(const LinearArgs& a) {
    constexpr int64_t kCacheBytes = 256 * 1024;
    const int64_t block = max_of(kCacheBytes / a.act_stride / 4 * 4, 8);
    for (int64_t r0 = 0; r0 < a.m; r0 += block) {
      const int64_t r_end = min_of(r0 + block, a.m);
      for (int64_t j = a.n_begin; j < a.n_end; j += kPanelRows) {
        int64_t r = r0;
        for (; r + 4 <= r_end; r += 4) tile<4>(a, j, r);
        switch (r_end - r) {
          case 3:
            tile<3>(a, j, r);
            break;
          case 2:
            tile<2>(a, j, r);
            break;
          case 1:
            tile<1>(a, j, r);
            break;
          default:
            break;
        }
      }
    }
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
      t.scratch_bytes = fast ? no_scratch : precise_scratch_bytes;
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
