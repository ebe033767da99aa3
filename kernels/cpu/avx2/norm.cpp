#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"

/// Order of summation: element i goes to f64 lane i % 16, each lane in sequence, then the tree
/// (a+b)+(c+d) over the four registers and hsum over the lanes. A row's tail is padded with zeros,
/// which add nothing.
namespace infer::kern::avx2 {
namespace {

[[gnu::always_inline]] inline double sqrt_scalar(double x) {
  return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(x)));
}

/// Sum over i of op(x[i]) with op(padding) = 0; `op` takes four f64 and the mask of those that are
/// elements.
template <class Op>
[[gnu::always_inline]] inline double sum_over(const float* x, int64_t n, Op op) {
  __m256d acc[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                    _mm256_setzero_pd()};
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t left = n - i;
    const __m256 v = left >= 8 ? _mm256_loadu_ps(x + i) : load_tail(x + i, left);
    const __m256 keep = _mm256_castsi256_ps(first_lanes(left < 8 ? left : 8));
    __m256d* a = acc + (i / 8 % 2) * 2;
    const __m128 keep_low = _mm256_castps256_ps128(keep);
    const __m128 keep_high = _mm256_extractf128_ps(keep, 1);
    const __m256i wide_low = _mm256_cvtepi32_epi64(_mm_castps_si128(keep_low));
    const __m256i wide_high = _mm256_cvtepi32_epi64(_mm_castps_si128(keep_high));
    a[0] = _mm256_add_pd(a[0], _mm256_and_pd(op(low_pd(v)), _mm256_castsi256_pd(wide_low)));
    a[1] = _mm256_add_pd(a[1], _mm256_and_pd(op(high_pd(v)), _mm256_castsi256_pd(wide_high)));
  }
  return hsum(_mm256_add_pd(_mm256_add_pd(acc[0], acc[1]), _mm256_add_pd(acc[2], acc[3])));
}

[[gnu::always_inline]] inline __m256 normalised(__m256 v, __m256d mean, __m256d inv) {
  const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(low_pd(v), mean), inv));
  const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(high_pd(v), mean), inv));
  return _mm256_set_m128(high, low);
}

/// Eight elements of p from i on, or what is left of them.
[[gnu::always_inline]] inline __m256 load_up_to_8(const float* p, int64_t left) {
  return left >= 8 ? _mm256_loadu_ps(p) : load_tail(p, left);
}
[[gnu::always_inline]] inline void store_up_to_8(float* p, int64_t left, __m256 v) {
  if (left >= 8) {
    _mm256_storeu_ps(p, v);
  } else {
    store_tail(p, left, v);
  }
}

}  // namespace

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* y) {
  __m256d acc[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                    _mm256_setzero_pd()};
  for (int64_t i = 0; i < n; i += 16) {
    const __m256 u = load_up_to_8(x + i, n - i);
    const __m256 v = n - i > 8 ? load_up_to_8(x + i + 8, n - i - 8) : _mm256_setzero_ps();
    acc[0] = _mm256_fmadd_pd(low_pd(u), low_pd(u), acc[0]);
    acc[1] = _mm256_fmadd_pd(high_pd(u), high_pd(u), acc[1]);
    acc[2] = _mm256_fmadd_pd(low_pd(v), low_pd(v), acc[2]);
    acc[3] = _mm256_fmadd_pd(high_pd(v), high_pd(v), acc[3]);
  }
  const double sum =
      hsum(_mm256_add_pd(_mm256_add_pd(acc[0], acc[1]), _mm256_add_pd(acc[2], acc[3])));
  const double mean_sq = sum / static_cast<double>(n);
  const __m256 inv =
      _mm256_set1_ps(static_cast<float>(1.0 / sqrt_scalar(mean_sq + static_cast<double>(eps))));
  for (int64_t i = 0; i < n; i += 8) {
    __m256 v = _mm256_mul_ps(load_up_to_8(x + i, n - i), inv);
    if (w) v = _mm256_mul_ps(v, load_up_to_8(w + i, n - i));
    store_up_to_8(y + i, n - i, v);
  }
}

void layer_norm(const float* x, const float* w, const float* b, float eps, int64_t n, float* y) {
  const double mean = sum_over(x, n, [](__m256d v) { return v; }) / static_cast<double>(n);
  const __m256d vmean = _mm256_set1_pd(mean);
  const double var = sum_over(x, n,
                              [vmean](__m256d v) {
                                const __m256d d = _mm256_sub_pd(v, vmean);
                                return _mm256_mul_pd(d, d);
                              }) /
                     static_cast<double>(n);
  const __m256d inv = _mm256_set1_pd(1.0 / sqrt_scalar(var + static_cast<double>(eps)));
  for (int64_t i = 0; i < n; i += 8) {
    __m256 v = normalised(load_up_to_8(x + i, n - i), vmean, inv);
    if (w) v = _mm256_mul_ps(v, load_up_to_8(w + i, n - i));
    if (b) v = _mm256_add_ps(v, load_up_to_8(b + i, n - i));
    store_up_to_8(y + i, n - i, v);
  }
}

}  // namespace infer::kern::avx2
