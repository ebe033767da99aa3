#pragma once

#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

/// kPrecise for quantised panels: a stretch of k of up to four panels is decoded to f32 in scratch,
/// then multiplied with f32 activations.
namespace infer::kern::avx2 {

inline constexpr int64_t kPanelRows = 8;      ///< outputs in a panel: the lanes
inline constexpr int64_t kPrecisePanels = 4;  ///< panels in flight
inline constexpr int64_t kPreciseK = 256;    ///< elements decoded at a time; a super-block must fit
inline constexpr int64_t kPreciseRows = 48;  ///< activation rows that share a decoded stretch
inline constexpr int64_t kPreciseWeightFloats = kPrecisePanels * kPreciseK * kPanelRows;
inline constexpr int64_t kPreciseAccFloats = kPreciseRows * kPrecisePanels * kPanelRows;

/// acc[r][p][lane] = fma(w[p][i][lane], x[r][i], acc[r][p][lane]) for i in sequence.
struct PreciseTile {
  const float* w = nullptr;      ///< [n_panel][kPreciseK][kPanelRows]
  int64_t n_panel = 0;           ///< 1..kPrecisePanels
  const std::byte* x = nullptr;  ///< row 0 at the first k of the stretch
  int64_t x_stride = 0;          ///< bytes
  int64_t m = 0, k = 0;
  float* acc = nullptr;  ///< [m][kPrecisePanels][kPanelRows]
};
void precise_tile(const PreciseTile& t);

inline int64_t precise_scratch_bytes(int64_t /*k*/) {
  return (kPreciseWeightFloats + kPreciseAccFloats) * static_cast<int64_t>(sizeof(float));
}

/// One block of up to 48 rows against one group of up to four panels starting at output j.
/// T::decode(unit, sub, dst) writes the f32 weights of 32 k as [32][kPanelRows].
template <class T>
void precise_group(const LinearArgs& a, int64_t row_begin, int64_t m, int64_t j) {
  float* w = reinterpret_cast<float*>(a.scratch);
  float* acc = w + kPreciseWeightFloats;
  const int64_t panel_bytes = panel::bytes_of_panel<T>(a.k);
  const int64_t n_panel = min_of(kPrecisePanels, (a.n_end - j + kPanelRows - 1) / kPanelRows);
  const uint8_t* panels = reinterpret_cast<const uint8_t*>(a.w) + j / kPanelRows * panel_bytes;
  const std::byte* x = a.act + row_begin * a.act_stride;
  __builtin_memset(acc, 0, static_cast<size_t>(m * kPrecisePanels * kPanelRows) * sizeof(float));
  for (int64_t k0 = 0; k0 < a.k; k0 += kPreciseK) {
    const int64_t len = min_of(kPreciseK, a.k - k0);
    for (int64_t p = 0; p < n_panel; ++p) {
      for (int64_t i = 0; i < len; i += 32) {
        const int64_t block = (k0 + i) / 32;
        T::decode(panels + p * panel_bytes + block / T::kSubs * T::kUnitBytes,
                  static_cast<int>(block % T::kSubs), w + (p * kPreciseK + i) * kPanelRows);
      }
    }
    PreciseTile t;
    t.w = w, t.n_panel = n_panel, t.m = m, t.k = len, t.acc = acc;
    t.x = x + k0 * static_cast<int64_t>(sizeof(float)), t.x_stride = a.act_stride;
    precise_tile(t);
  }
  for (int64_t r = 0; r < m; ++r) {
    float* out = a.out + (row_begin + r) * a.out_stride + (j - a.n_begin);
    for (int64_t p = 0; p < n_panel; ++p) {
      const __m256 v = _mm256_loadu_ps(acc + (r * kPrecisePanels + p) * kPanelRows);
      store_lanes(out + p * kPanelRows, v, a.n_end - j - p * kPanelRows);
    }
  }
}

template <class T>
void run_precise(const LinearArgs& a) {
  for (int64_t r = 0; r < a.m; r += kPreciseRows) {
    for (int64_t j = a.n_begin; j < a.n_end; j += kPrecisePanels * kPanelRows) {
      precise_group<T>(a, r, min_of(kPreciseRows, a.m - r), j);
    }
  }
}

}  // namespace infer::kern::avx2
