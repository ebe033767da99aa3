#pragma once

// One activation row times panels of sixteen outputs: the twin of avx2/linear_gemv.h, which says
// why two panels advance together and are fetched ahead. Blocks take the steps of linear_fast.h,
// hence the same bits as in any batch. vpdpbusd broadcasts four activations from memory itself.
#include "kernels/cpu/avx512/linear_fast.h"

namespace infer::kern::avx512 {

inline constexpr int kGemvPanels = 2;
inline constexpr int64_t kGemvAhead = 2048;  ///< bytes that each stream is ahead

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
        block_step<T, 1>(levels, T::scales(at, sub), x, 0, nullptr, acc + p);
      });
    }
  }
  unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
    constexpr int p = decltype(panel)::value;
    const int64_t at = j + p * kPanelRows;
    store_lanes(a.out + (at - a.n_begin), acc[p], min_of(kPanelRows, a.n_end - at));
  });
}

template <class T>
void gemv(const LinearArgs& a) {
  int64_t j = a.n_begin;
  for (; j + (kGemvPanels - 1) * kPanelRows < a.n_end; j += kGemvPanels * kPanelRows) {
    gemv_panels<T, kGemvPanels>(a, j);
  }
  for (; j < a.n_end; j += kPanelRows) gemv_panels<T, 1>(a, j);
}

}  // namespace infer::kern::avx512
