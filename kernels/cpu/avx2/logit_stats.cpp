#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"

/// Order of summation: element i goes to f64 lane i % 16, each lane in sequence, then the tree
/// (a+b)+(c+d) over the four registers and hsum over the lanes. The tail is padded with -inf, whose
/// exponential is an exact 0.
namespace infer::kern::avx2 {
namespace {

/// Eight elements, or the n left of them with -inf behind.
[[gnu::always_inline]] inline __m256 load_padded(const float* p, int64_t left) {
  if (left >= 8) return _mm256_loadu_ps(p);
  const __m256 keep = _mm256_castsi256_ps(first_lanes(left > 0 ? left : 0));
  const __m256 v = left > 0 ? load_tail(p, left) : _mm256_setzero_ps();
  return _mm256_blendv_ps(_mm256_set1_ps(kNegInf), v, keep);
}

/// Largest element, and whether any is NaN.
float max_of(const float* x, int64_t n, bool* has_nan) {
  __m256 m0 = _mm256_set1_ps(kNegInf);
  __m256 m1 = m0;
  __m256 nan = _mm256_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __m256 u = load_padded(x + i, n - i);
    const __m256 v = load_padded(x + i + 8, n - i - 8);
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(u, v, _CMP_UNORD_Q));
    m0 = _mm256_max_ps(u, m0);  // a NaN in u leaves m0
    m1 = _mm256_max_ps(v, m1);
  }
  *has_nan = _mm256_movemask_ps(nan) != 0;
  return hmax(_mm256_max_ps(m0, m1));
}

/// Lowest index of an element equal to `value`, which is among them.
int64_t find_first(const float* x, int64_t n, float value) {
  const __m256 v = _mm256_set1_ps(value);
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 same = _mm256_cmp_ps(load_padded(x + i, n - i), v, _CMP_EQ_OQ);
    const int mask = _mm256_movemask_ps(same);
    if (mask != 0) return i + __builtin_ctz(static_cast<unsigned>(mask));
  }
  return 0;
}

double sum_exp(const float* x, int64_t n, float max) {
  const __m256 m = _mm256_set1_ps(max);
  __m256d a = _mm256_setzero_pd(), b = a, c = a, d = a;
  for (int64_t i = 0; i < n; i += 16) {
    const __m256 u = exp_nonpos(_mm256_sub_ps(load_padded(x + i, n - i), m));
    const __m256 v = exp_nonpos(_mm256_sub_ps(load_padded(x + i + 8, n - i - 8), m));
    a = _mm256_add_pd(a, low_pd(u));
    b = _mm256_add_pd(b, high_pd(u));
    c = _mm256_add_pd(c, low_pd(v));
    d = _mm256_add_pd(d, high_pd(v));
  }
  return hsum(_mm256_add_pd(_mm256_add_pd(a, b), _mm256_add_pd(c, d)));
}

}  // namespace

void logit_stats(const float* x, int64_t n, LogitStats* stats) {
  bool nan = false;
  const float max = max_of(x, n, &nan);
  const bool finite = max - max == 0.0f;
  stats->max = max;
  stats->argmax = nan ? 0 : static_cast<int32_t>(find_first(x, n, max));
  stats->has_nan = nan || !finite;
  stats->sum_exp = stats->has_nan ? __builtin_nan("") : sum_exp(x, n, max);
}

}  // namespace infer::kern::avx2
