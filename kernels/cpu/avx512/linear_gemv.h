#pragma once

// One activation row times panels of sixteen outputs: the twin of avx2/linear_gemv.h, which says
// why two panels advance together and are fetched ahead. Order: linear_fast.h. vpdpbusd broadcasts
// four activations from memory itself.
#include "kernels/cpu/avx512/linear_block.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx512 {

inline constexpr int kGemvPanels = 2;
inline constexpr int64_t kGemvAhead = 2048;  ///< bytes that each stream is ahead

/// acc += one block: sums, scales, minima.
template <class T>
[[gnu::always_inline]] inline void gemv_block(const __m512i* levels, const BlockScales& s,
                                              const ActBlock& x, __m512& acc) {
  constexpr bool kSplit = T::kScale == ScaleKind::kSplit;
  __m512i lo = _mm512_setzero_si512(), hi = lo, offset = lo;
  if constexpr (T::kOffset != 0) {
    (kSplit ? offset : lo) = _mm512_dpwssd_epi32(lo, s.offset, broadcast_u32(x.h));
  }
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int i = quad.value;
    __m512i& sum = kSplit && i >= 4 ? hi : lo;
    sum = _mm512_dpbusd_epi32(sum, levels[i], broadcast_u32(x.q + 4 * i));
  });
  if constexpr (kSplit) {
    lo = _mm512_add_epi32(_mm512_mullo_epi32(lo, s.mul_lo), _mm512_mullo_epi32(hi, s.mul_hi));
    if constexpr (T::kOffset != 0) lo = _mm512_add_epi32(lo, offset);
  }
  __m512 t = f32_from_i32(lo);
  if constexpr (T::kScale == ScaleKind::kOne) t = _mm512_mul_ps(t, s.mul);
  const __m512 d_x = broadcast_f32(&x.d);
  acc = _mm512_fmadd_ps(t, _mm512_mul_ps(s.d, d_x), acc);
  if constexpr (T::kMin == MinKind::kSplit) {
    const __m512i m = _mm512_dpwssd_epi32(_mm512_setzero_si512(), s.mins, broadcast_u32(x.h));
    acc = _mm512_fmadd_ps(f32_from_i32(m), _mm512_mul_ps(s.neg_min, d_x), acc);
  } else if constexpr (T::kMin == MinKind::kOne) {
    acc = _mm512_fmadd_ps(s.neg_min, broadcast_f32(&x.s), acc);
  }
}

/// Panels j.. of the matrix; the last one has outputs below n_end, maybe not all sixteen.
template <class T, int kPanels>
void gemv_panels(const LinearArgs& a, int64_t j) {
  constexpr int64_t kSubBytes = T::kUnitBytes / T::kSubs;
  constexpr int64_t kAheadUnits = (kGemvAhead + T::kUnitBytes - 1) / T::kUnitBytes;
  const int64_t stride = panel::bytes_of_panel<T>(a.k), n_unit = stride / T::kUnitBytes;
  const auto* unit = reinterpret_cast<const uint8_t*>(a.w) + j / kPanelRows * stride;
  const std::byte* x = a.act;
  // Past the end of a panel lies the neighbour that is being read as well: the stream goes on
  // behind that one, unless this was the last.
  const bool more = j + kPanels * kPanelRows < a.n_end;
  const int64_t near = kAheadUnits * T::kUnitBytes, far = more ? near + (kPanels - 1) * stride : 0;
  __m512 acc[kPanels];
  unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
    acc[decltype(panel)::value] = _mm512_setzero_ps();
  });
  for (int64_t u = 0; u < n_unit; ++u, unit += T::kUnitBytes) {
    const uint8_t* ahead = unit + (u + kAheadUnits < n_unit ? near : far);
    for (int sub = 0; sub < T::kSubs; ++sub, x += sizeof(ActBlock), ahead += kSubBytes) {
      unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
        constexpr int p = decltype(panel)::value;
        for (int64_t i = 0; i < kSubBytes; i += 64) __builtin_prefetch(ahead + p * stride + i);
        const uint8_t* at = unit + p * stride;
        __m512i levels[8];
        T::levels(T::sub_block(at, sub), levels);
        gemv_block<T>(levels, T::scales(at, sub), *reinterpret_cast<const ActBlock*>(x), acc[p]);
      });
    }
  }
  unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
    constexpr int p = decltype(panel)::value;
    const int64_t at = j + p * kPanelRows;
    store_lanes(a.out + (at - a.n_begin), acc[p], min_of(kPanelRows, a.n_end - at));
  });
}

/// LinearKernel::run of one activation row.
template <class T>
void gemv(const LinearArgs& a) {
  int64_t j = a.n_begin;
  for (; j + (kGemvPanels - 1) * kPanelRows < a.n_end; j += kGemvPanels * kPanelRows) {
    gemv_panels<T, kGemvPanels>(a, j);
  }
  for (; j < a.n_end; j += kPanelRows) gemv_panels<T, 1>(a, j);
}

}  // namespace infer::kern::avx512
