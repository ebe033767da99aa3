// Panels of eight outputs times f32 activations.
//
// Reduction order, the same for every m, n range, panel position and thread: one chain per output,
//   acc = fma(w[k], x[k], acc)  for k = 0, 1, 2, ...  starting from +0,
// where w[k] is the decoded weight (equal to generic::decode_row's, zeros apart in sign). A stretch
// boundary stores and reloads acc, which changes no bit.
#include "kernels/cpu/avx2/linear_precise.h"

namespace infer::kern::avx2 {
namespace {

template <int kPanels, int kRows>
void tile(const PreciseTile& t, int64_t r0) {
  __m256 acc[kRows][kPanels];
  float* acc_at = t.acc + r0 * kPrecisePanels * kPanelRows;
  const std::byte* x = t.x + r0 * t.x_stride;
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      acc[r][p] = _mm256_loadu_ps(acc_at + (r * kPrecisePanels + p) * kPanelRows);
    }
  }
  const float* w = t.w;
  for (int64_t i = 0; i < t.k; ++i, w += kPanelRows) {
    __m256 wv[kPanels];
    for (int p = 0; p < kPanels; ++p) wv[p] = _mm256_loadu_ps(w + p * kPreciseK * kPanelRows);
    for (int r = 0; r < kRows; ++r) {
      const __m256 xv = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + r * t.x_stride) + i);
      for (int p = 0; p < kPanels; ++p) acc[r][p] = _mm256_fmadd_ps(wv[p], xv, acc[r][p]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      _mm256_storeu_ps(acc_at + (r * kPrecisePanels + p) * kPanelRows, acc[r][p]);
    }
  }
}

template <int kPanels>
void rows(const PreciseTile& t) {
  int64_t r = 0;
  for (; r + 3 <= t.m; r += 3) tile<kPanels, 3>(t, r);
  if (t.m - r == 2) tile<kPanels, 2>(t, r);
  if (t.m - r == 1) tile<kPanels, 1>(t, r);
}

}  // namespace

void precise_tile(const PreciseTile& t) {
  switch (t.n_panel) {
    case 4:
      return rows<4>(t);
    case 3:
      return rows<3>(t);
    case 2:
      return rows<2>(t);
    default:
      return rows<1>(t);
  }
}

}  // namespace infer::kern::avx2
