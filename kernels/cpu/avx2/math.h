#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/exp.h"

/// Vector functions of one f32 per lane. Every lane is computed alone, so its bits depend on its
/// own input only. Force-inlined: no shared copy is emitted (style.md 2.6). Errors in ulp of the
/// result were measured against f64 over a sweep of the whole range (tests/ops/elementwise_test.cpp
/// holds them to their bounds). NaN in, NaN out. Polynomials: minimax fits of our own, coefficients
/// rounded to f32.
namespace infer::kern::avx2 {

inline constexpr float kNegInf = -__builtin_inff();

/// Lanes [0, n) on, n in 0..8.
[[gnu::always_inline]] inline __m256i first_lanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

/// The last n < 8 elements of a row, zeros behind them; memory past them is not touched.
[[gnu::always_inline]] inline __m256 load_tail(const float* p, int64_t n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
[[gnu::always_inline]] inline void store_tail(float* p, int64_t n, __m256 v) {
  _mm256_maskstore_ps(p, first_lanes(n), v);
}

[[gnu::always_inline]] inline __m256 vabs(__m256 x) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/// Eight f32, for what is written once for every width.
struct F32x8 {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  [[gnu::always_inline]] static Reg set1(float x) { return _mm256_set1_ps(x); }
  [[gnu::always_inline]] static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  [[gnu::always_inline]] static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  [[gnu::always_inline]] static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg fnma(Reg a, Reg b, Reg c) { return _mm256_fnmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg pow2(Reg shifted) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23),
                                                _mm256_set1_epi32(0x3f800000)));
  }
  [[gnu::always_inline]] static Reg zero_below(Reg x, float bound, Reg y) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, set1(bound), _CMP_LT_OQ), y);
  }
};

[[gnu::always_inline]] inline __m256 exp_nonpos(__m256 x) { return exp_nonpos_of<F32x8>(x); }
[[gnu::always_inline]] inline float exp_nonpos(float x) {
  return _mm256_cvtss_f32(exp_nonpos(_mm256_set1_ps(x)));
}

/// tanh x: at most 2 ulp. |x| < 0.625: odd polynomial; else (1 - e) / (1 + e), e = e^(-2|x|).
[[gnu::always_inline]] inline __m256 tanh_ps(__m256 x) {
  const __m256 a = vabs(x);
  const __m256 u = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(-0.00571703259f);
  p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(0.0206505749f));
  p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(-0.0537434928f));
  p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(0.133314908f));
  p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(-0.333332837f));
  const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, u), x, x);
  const __m256 e = exp_nonpos(_mm256_mul_ps(a, _mm256_set1_ps(-2.0f)));
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 large = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
  const __m256 sign = _mm256_and_ps(_mm256_set1_ps(-0.0f), x);
  const __m256 is_small = _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
  return _mm256_blendv_ps(_mm256_or_ps(large, sign), small, is_small);
}

/// 1 / (1 + e^-x): at most 2.5 ulp where the result is above 2^-125; 0 below. e^-|x| cannot
/// overflow.
[[gnu::always_inline]] inline __m256 sigmoid_ps(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 e = exp_nonpos(_mm256_or_ps(x, _mm256_set1_ps(-0.0f)));
  const __m256 num = _mm256_blendv_ps(one, e, x);  // by the sign bit
  return _mm256_div_ps(num, _mm256_add_ps(one, e));
}

/// Gaussian distribution function Phi(x) = (1 + erf(x / sqrt 2)) / 2: at most 8 ulp where the
/// result is above 2^-125. a = |x|: Phi(-a) = e^(-a^2 / 2) t P(t), t = 1 / (1 + a / 4); a^2 carries
/// its rounding error into the exponential.
[[gnu::always_inline]] inline __m256 normal_cdf_ps(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 a = _mm256_min_ps(_mm256_set1_ps(16.0f), vabs(x));  // NaN comes out of min as NaN
  const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(a, _mm256_set1_ps(0.25f), one));
  __m256 p = _mm256_set1_ps(0.0171771925f);
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.0661193356f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.059693642f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.0173837449f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.0222141445f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.0813667774f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.073902972f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.095089525f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.099546358f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.0997449905f));
  const __m256 sq = _mm256_mul_ps(a, a);
  const __m256 sq_rest = _mm256_fmsub_ps(a, a, sq);
  __m256 e = exp_nonpos(_mm256_mul_ps(sq, _mm256_set1_ps(-0.5f)));
  e = _mm256_fnmadd_ps(_mm256_mul_ps(sq_rest, _mm256_set1_ps(0.5f)), e, e);
  const __m256 q = _mm256_mul_ps(e, _mm256_mul_ps(t, p));
  return _mm256_blendv_ps(_mm256_sub_ps(one, q), q, x);  // by the sign bit
}

/// cap * tanh(x / cap).
[[gnu::always_inline]] inline __m256 softcap_ps(__m256 x, __m256 cap) {
  return _mm256_mul_ps(cap, tanh_ps(_mm256_div_ps(x, cap)));
}

/// Largest lane. Where a lane is NaN the result is any lane.
[[gnu::always_inline]] inline float hmax(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  m = _mm_max_ss(m, _mm_movehdup_ps(m));
  return _mm_cvtss_f32(m);
}

/// Sum of lanes, as ((0+4)+(2+6)) + ((1+5)+(3+7)).
[[gnu::always_inline]] inline float hsum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(s);
}

/// Sum of lanes, as (0+2) + (1+3).
[[gnu::always_inline]] inline double hsum(__m256d v) {
  __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  s = _mm_add_sd(s, _mm_unpackhi_pd(s, s));
  return _mm_cvtsd_f64(s);
}

[[gnu::always_inline]] inline __m256d low_pd(__m256 v) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}
[[gnu::always_inline]] inline __m256d high_pd(__m256 v) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

/// The running maxima of eight softmaxes: max = max(max, tile_max), and what was summed up to now
/// takes `rescale` = e^(old max - max), exactly 1 where it did not move. NaN never becomes a
/// maximum.
[[gnu::always_inline]] inline void raise_max8(const float* tile_max, float* max, float* rescale) {
  const __m256 old = _mm256_loadu_ps(max), tile = _mm256_loadu_ps(tile_max);
  const __m256 raised = _mm256_blendv_ps(old, tile, _mm256_cmp_ps(tile, old, _CMP_GT_OQ));
  const __m256 same = _mm256_cmp_ps(raised, old, _CMP_EQ_OQ);  // -inf twice as well
  const __m256 factor = exp_nonpos(_mm256_sub_ps(old, raised));
  _mm256_storeu_ps(rescale, _mm256_blendv_ps(factor, _mm256_set1_ps(1.0f), same));
  _mm256_storeu_ps(max, raised);
}

}  // namespace infer::kern::avx2
