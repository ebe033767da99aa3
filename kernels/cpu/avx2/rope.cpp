#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"

/// Each pair alone: a' = fma(a, cos, -(b sin)), b' = fma(b, cos, a sin), in vectors and tails
/// alike.
namespace infer::kern::avx2 {
namespace {

/// One pair, for what does not fill a register.
[[gnu::always_inline]] inline void rotate_pair(float* a, float* b, const float* cos_sin) {
  const float a0 = *a;
  const float b0 = *b;
  *a = __builtin_fmaf(a0, cos_sin[0], -(b0 * cos_sin[1]));
  *b = __builtin_fmaf(b0, cos_sin[0], a0 * cos_sin[1]);
}

void rotate_norm(float* head, int64_t half, const float* cos_sin) {
  int64_t i = 0;
  for (; i + 4 <= half; i += 4) {
    const __m256 v = _mm256_loadu_ps(head + 2 * i);
    const __m256 cs = _mm256_loadu_ps(cos_sin + 2 * i);
    const __m256 swapped = _mm256_permute_ps(v, 0xb1);
    const __m256 cross = _mm256_mul_ps(swapped, _mm256_movehdup_ps(cs));
    _mm256_storeu_ps(head + 2 * i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(cs), cross));
  }
  for (; i < half; ++i) rotate_pair(head + 2 * i, head + 2 * i + 1, cos_sin + 2 * i);
}

void rotate_neox(float* head, int64_t half, const float* cos_sin) {
  int64_t i = 0;
  for (; i + 8 <= half; i += 8) {
    const __m256 cs0 = _mm256_loadu_ps(cos_sin + 2 * i);
    const __m256 cs1 = _mm256_loadu_ps(cos_sin + 2 * i + 8);
    // Even elements are cosines; the shuffle leaves 64-bit pairs in the order 0 2 1 3.
    const __m256d c4 = _mm256_castps_pd(_mm256_shuffle_ps(cs0, cs1, 0x88));
    const __m256d s4 = _mm256_castps_pd(_mm256_shuffle_ps(cs0, cs1, 0xdd));
    const __m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(c4, 0xd8));
    const __m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(s4, 0xd8));
    const __m256 a = _mm256_loadu_ps(head + i);
    const __m256 b = _mm256_loadu_ps(head + half + i);
    _mm256_storeu_ps(head + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_storeu_ps(head + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
  for (; i < half; ++i) rotate_pair(head + i, head + half + i, cos_sin + 2 * i);
}

}  // namespace

void rope(RopeKind kind, float* x, int64_t n_head, int64_t head_dim, int64_t rope_dim,
          const float* cos_sin) {
  for (int64_t h = 0; h < n_head; ++h) {
    float* head = x + h * head_dim;
    if (kind == RopeKind::kNorm) {
      rotate_norm(head, rope_dim / 2, cos_sin);
    } else {
      rotate_neox(head, rope_dim / 2, cos_sin);
    }
  }
}

}  // namespace infer::kern::avx2
