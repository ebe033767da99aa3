#pragma once

#include "quantize/encode/fit.h"

/// Blocks with a scale alone: x ~ s q, q in [-low, low - 1], s of either sign. In a super-block of
/// G blocks s is a whole multiple of d (f16).
///
/// Search: (1) a grid of scales on either side of the one that puts the extreme weight on the
/// outermost level, of both signs, each improved to its least-squares scale; (2) d from the largest
/// scale; (3) the multiples near it that err least; (4) the least-squares d for the levels found.
namespace infer::quantize::INFER_ENCODE_LEVEL {

struct SymmetricSearch {
  float flat;                  ///< of load_blocks
  float grid_from, grid_step;  ///< levels that the extreme weight lies beyond low
  int n_grid, n_refine;
  int radius;   ///< of (3)
  int n_again;  ///< (4) and (3) once more
};

template <int N, int W>
INFER_INLINE LevelSums<W> symmetric_levels(const Blocks<N, W>& b, const F32<W>& s, float low) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> bottom = F32<W>::of(-low);
  const F32<W> top = F32<W>::of(low - 1.0f);
  const F32<W> inverse = inverse_of(s);
  LevelSums<W> sums{zero, zero, zero};
  for (int i = 0; i < N; ++i) {
    const F32<W> q = round(clamp(b.x[i] * inverse, bottom, top));
    const F32<W> wq = b.w[i] * q;
    sums.qq = sums.qq + wq * q;
    sums.qx = sums.qx + wq * b.x[i];
  }
  return sums;
}

/// The error with the nearest levels.
template <int N, int W>
INFER_INLINE F32<W> symmetric_error(const Blocks<N, W>& b, const F32<W>& s, float low) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> bottom = F32<W>::of(-low);
  const F32<W> top = F32<W>::of(low - 1.0f);
  const F32<W> inverse = inverse_of(s);
  F32<W> sum = zero;
  for (int i = 0; i < N; ++i) {
    const F32<W> y = b.x[i] * inverse;
    const F32<W> e = round(clamp(y, bottom, top)) - y;
    sum = sum + b.w[i] * (e * e);
  }
  return select(s == zero, b.sum_xx, sum * s * s);
}

/// Step (1).
template <int N, int W>
INFER_INLINE F32<W> symmetric_search(const Blocks<N, W>& b, float low, const SymmetricSearch& how) {
  F32<W> extreme = b.x[0];
  for (int i = 1; i < N; ++i) {
    const I32<W> farther = abs(b.x[i]) > abs(extreme);
    extreme = select(farther, b.x[i], extreme);
  }
  F32<W> best = extreme * F32<W>::of(-1.0f / low);
  F32<W> best_gain = F32<W>::of(0.0f);  // the error less sum of w x x, negated
  for (int sign = 0; sign < 2; ++sign) {
    const float ends = sign == 0 ? low : low - 1.0f;
    for (int g = 0; g < how.n_grid; ++g) {
      const float levels = ends + how.grid_from + how.grid_step * static_cast<float>(g);
      const F32<W> start = extreme * F32<W>::of(sign == 0 ? -1.0f / levels : 1.0f / levels);
      const LevelSums<W> t = symmetric_levels(b, start, low);
      const F32<W> fit = t.qx * inverse_of(t.qq);
      const I32<W> better = fit * t.qx > best_gain;
      keep(better, fit * t.qx, &best_gain);
      keep(better, fit, &best);
    }
  }
  for (int r = 0; r < how.n_refine; ++r) {
    const LevelSums<W> t = symmetric_levels(b, best, low);
    const F32<W> fit = t.qx * inverse_of(t.qq);
    keep(fit * t.qx > best_gain, fit, &best);
    best_gain = max(fit * t.qx, best_gain);
  }
  return best;
}

/// s = d sc; d is the same in the lanes of a super-block, and is an f16 value.
template <int W>
struct SymmetricScales {
  F32<W> d, sc;
};

template <int N, int W>
INFER_INLINE void choose_multiples(const Blocks<N, W>& b, float low, float scale_low, int radius,
                                   SymmetricScales<W>* k) {
  const F32<W> bottom = F32<W>::of(-scale_low);
  const F32<W> top = F32<W>::of(scale_low - 1.0f);
  const F32<W> sc = k->sc;
  F32<W> best_error = F32<W>::of(3e38f);
  for (int i = -radius; i <= radius; ++i) {
    const F32<W> s = clamp(sc + F32<W>::of(static_cast<float>(i)), bottom, top);
    const F32<W> error = symmetric_error(b, k->d * s, low);
    const I32<W> better = error < best_error;
    keep(better, error, &best_error);
    keep(better, s, &k->sc);
  }
}

template <int G, int N, int W>
INFER_INLINE void solve_super(const Blocks<N, W>& b, float low, SymmetricScales<W>* k) {
  const LevelSums<W> t = symmetric_levels(b, k->d * k->sc, low);
  const F32<W> ss = group_sum<G>(k->sc * k->sc * t.qq);
  const F32<W> d = group_sum<G>(k->sc * t.qx) * inverse_of(ss);
  keep(ss > F32<W>::of(0.0f), per_lane(d, nearest_half), &k->d);
}

/// All steps; multiples lie in [-scale_low, scale_low - 1].
template <int G, int N, int W>
INFER_INLINE SymmetricScales<W> symmetric_super(const Blocks<N, W>& b, float low, float scale_low,
                                                const SymmetricSearch& how) {
  const F32<W> real = symmetric_search(b, low, how);
  SymmetricScales<W> k;
  k.d = per_lane(group_extreme<G>(real) * F32<W>::of(-1.0f / scale_low), nearest_half);
  k.sc = round(clamp(real * inverse_of(k.d), F32<W>::of(-scale_low), F32<W>::of(scale_low - 1.0f)));
  choose_multiples(b, low, scale_low, how.radius, &k);
  solve_super<G>(b, low, &k);
  for (int i = 0; i < how.n_again; ++i) {
    choose_multiples(b, low, scale_low, 1, &k);
    solve_super<G>(b, low, &k);
  }
  return k;
}

template <int N, int W>
INFER_INLINE void symmetric_quantise(const Blocks<N, W>& b, const F32<W>& s, float low,
                                     F32<W> (&q)[N]) {
  const F32<W> inverse = inverse_of(s);
  for (int i = 0; i < N; ++i)
    q[i] = round(clamp(b.x[i] * inverse, F32<W>::of(-low), F32<W>::of(low - 1.0f)));
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
