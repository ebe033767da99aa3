#pragma once

// One activation row times panels, which is generation: every byte of the weights is read once, so
// the aim is that memory never waits for arithmetic. Orders and bounds are those of linear_fast.h,
// hence the same bits as in any batch.
//
// Two panels advance together: they share the broadcasts of the activations, and each is a stream
// of memory of its own. Both are fetched ahead, because panels are too short for the hardware to
// see the next ones come, and because it stops at every page.
#include "kernels/cpu/avx2/linear_act.h"
#include "kernels/cpu/avx2/linear_precise.h"
#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx2 {

inline constexpr int kGemvPanels = 2;
/// Bytes that each stream is ahead; both together cover what arrives while memory answers, 150 ns
/// at 28 GB/s.
inline constexpr int64_t kGemvAhead = 2048;

/// t[p] = integer sums of one block of panel p (panels are `stride` bytes apart), for unsigned
/// levels. kStep vectors (of two quads each) fit into 16 bits.
template <class T, int kPanels>
[[gnu::always_inline]] inline void gemv_sums_unsigned(const uint8_t* unit, int64_t stride, int sub,
                                                      const ActBlock& x, __m256i* t) {
  constexpr int kStep = T::kBits <= 4 ? 4 : 2;
  unrolled<4 / kStep>([&](auto step) __attribute__((always_inline)) {
    __m256i lo16[kPanels], hi16[kPanels];
    unrolled<kStep>([&](auto vec) __attribute__((always_inline)) {
      constexpr int kVec = decltype(step)::value * kStep + decltype(vec)::value;
      constexpr bool kFirst = decltype(vec)::value == 0;
      const __m256i x_lo = broadcast_u32(x.q + 4 * kVec);
      const __m256i x_hi = broadcast_u32(x.q + 16 + 4 * kVec);
      unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
        constexpr int p = decltype(panel)::value;
        __m256i lo, hi;
        T::template levels<kVec>(unit + p * stride, sub, lo, hi);
        const __m256i a = _mm256_maddubs_epi16(lo, x_lo);
        const __m256i b = _mm256_maddubs_epi16(hi, x_hi);
        lo16[p] = kFirst ? a : _mm256_add_epi16(lo16[p], a);
        settle(lo16[p]);
        if constexpr (T::kSplitScale) {
          hi16[p] = kFirst ? b : _mm256_add_epi16(hi16[p], b);
          settle(hi16[p]);
        } else {
          lo16[p] = _mm256_add_epi16(lo16[p], b);
          settle(lo16[p]);
        }
      });
    });
    unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
      constexpr int p = decltype(panel)::value;
      const auto s = T::scales(unit + p * stride, sub);
      __m256i part = _mm256_madd_epi16(lo16[p], s.mul_lo);
      if constexpr (T::kSplitScale)
        part = _mm256_add_epi32(part, _mm256_madd_epi16(hi16[p], s.mul_hi));
      t[p] = decltype(step)::value == 0 ? part : _mm256_add_epi32(t[p], part);
      settle(t[p]);
    });
  });
  if constexpr (T::kOffset != 0) {  // levels stand for q - kOffset
    const __m256i half_sums = broadcast_u32(x.h);
    unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
      constexpr int p = decltype(panel)::value;
      const auto s = T::scales(unit + p * stride, sub);
      t[p] = _mm256_sub_epi32(t[p], T::offset_sum(s, half_sums));
    });
  }
}

/// The same for signed 8-bit levels: |w| * (x with the sign of w).
template <class T, int kPanels>
[[gnu::always_inline]] inline void gemv_sums_signed(const uint8_t* unit, int64_t stride, int sub,
                                                    const ActBlock& x, __m256i* t) {
  const __m256i ones = _mm256_set1_epi16(1);
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int kQuad = decltype(quad)::value;
    const __m256i q = broadcast_u32(x.q + 4 * kQuad);
    unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
      constexpr int p = decltype(panel)::value;
      __m256i w = T::quad(unit + p * stride, sub, kQuad);
      settle(w);
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
      const __m256i part = _mm256_madd_epi16(pairs, ones);
      t[p] = kQuad == 0 ? part : _mm256_add_epi32(t[p], part);
      settle(t[p]);
    });
  });
}

/// One block: sums, scales, minima.
template <class T, int kPanels>
[[gnu::always_inline]] inline void gemv_block(const uint8_t* unit, int64_t stride, int sub,
                                              const ActBlock& x, __m256* acc) {
  constexpr bool kSplitMin = requires { T::mins(unit, sub); };
  __m256i t[kPanels];
  if constexpr (T::kBits == 8) {
    gemv_sums_signed<T, kPanels>(unit, stride, sub, x, t);
  } else {
    gemv_sums_unsigned<T, kPanels>(unit, stride, sub, x, t);
  }
  const __m256 d = _mm256_broadcast_ss(&x.d);
  unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
    constexpr int p = decltype(panel)::value;
    const auto s = T::scales(unit + p * stride, sub);
    acc[p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[p]), _mm256_mul_ps(s.d, d), acc[p]);
    if constexpr (kSplitMin) {
      const __m256i m = _mm256_madd_epi16(T::mins(unit + p * stride, sub), broadcast_u32(x.h));
      acc[p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(m), _mm256_mul_ps(s.neg_min, d), acc[p]);
    } else if constexpr (T::kHasMin) {
      acc[p] = _mm256_fmadd_ps(s.neg_min, _mm256_broadcast_ss(&x.s), acc[p]);
    }
  });
}

/// Panels j.. of the matrix; the last one has outputs below n_end, maybe not all eight.
template <class T, int kPanels>
void gemv_panels(const LinearArgs& a, int64_t j) {
  constexpr int64_t kSubBytes = T::kUnitBytes / T::kSubs;
  constexpr int64_t kAheadUnits = (kGemvAhead + T::kUnitBytes - 1) / T::kUnitBytes;
  const int64_t stride = panel::bytes_of_panel<T>(a.k), n_unit = stride / T::kUnitBytes;
  const auto* unit = reinterpret_cast<const uint8_t*>(a.w) + j / kPanelRows * stride;
  const auto* x = reinterpret_cast<const ActBlock*>(a.act);
  // Past the end of a panel lies the neighbour that is being read as well: the stream goes on
  // behind that one, unless this was the last.
  const bool more = j + kPanels * kPanelRows < a.n_end;
  const int64_t near = kAheadUnits * T::kUnitBytes, far = more ? near + (kPanels - 1) * stride : 0;
  __m256 acc[kPanels];
  for (int p = 0; p < kPanels; ++p) acc[p] = _mm256_setzero_ps();
  for (int64_t u = 0; u < n_unit; ++u, unit += T::kUnitBytes) {
    const uint8_t* ahead = unit + (u + kAheadUnits < n_unit ? near : far);
    for (int sub = 0; sub < T::kSubs; ++sub, ++x, ahead += kSubBytes) {
      for (int p = 0; p < kPanels; ++p) {
        for (int64_t i = 0; i < kSubBytes; i += 64)
          _mm_prefetch(ahead + p * stride + i, _MM_HINT_T0);
      }
      gemv_block<T, kPanels>(unit, stride, sub, *x, acc);
    }
  }
  unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
    constexpr int p = decltype(panel)::value;
    const int64_t at = j + p * kPanelRows;
    store_lanes(a.out + (at - a.n_begin), acc[p], min_of(kPanelRows, a.n_end - at));
  });
}

/// LinearKernel::run of one row.
template <class T>
void gemv(const LinearArgs& a) {
  int64_t j = a.n_begin;
  for (; j + (kGemvPanels - 1) * kPanelRows < a.n_end; j += kGemvPanels * kPanelRows) {
    gemv_panels<T, kGemvPanels>(a, j);
  }
  for (; j < a.n_end; j += kPanelRows) gemv_panels<T, 1>(a, j);
}

}  // namespace infer::kern::avx2
