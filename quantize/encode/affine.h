#pragma once

#include "quantize/encode/fit.h"

/// Blocks with a scale and a minimum: x ~ s q - m, q in [0, top]. In a super-block of G blocks s
/// and m are whole multiples of d and dmin (f16).
///
/// Search: (1) stretch the range of each block over a grid of level counts, and take the
/// least-squares s and m for the levels that gives; (2) d and dmin from the largest s and m, with
/// some room above; (3) for each block the multiples near these that err least, looked for along
/// the line on which the middle of the block stays where it is, since s and m move together; (4)
/// the least-squares d and dmin for the levels found, and (3) again from there.
namespace infer::quantize::INFER_ENCODE_LEVEL {

/// How long is looked for; chosen by measurement (quantize/README.md).
struct AffineSearch {
  float flat;  ///< of load_blocks
  float grid_from, grid_step;
  int n_grid, n_refine;
  int scale_radius, min_radius;  ///< of (3)
  int n_again;                   ///< (4), with radii of 1
};

template <int W>
struct Affine {
  F32<W> s, m;
};

template <int N, int W>
INFER_INLINE LevelSums<W> affine_levels(const Blocks<N, W>& b, const Affine<W>& fit, float top) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> high = F32<W>::of(top);
  const F32<W> inverse = inverse_of(fit.s);
  const F32<W> offset = fit.m * inverse;
  LevelSums<W> sums{zero, zero, zero};
  for (int i = 0; i < N; ++i) {
    const F32<W> q = round(clamp(b.x[i] * inverse + offset, zero, high));
    const F32<W> wq = b.w[i] * q;
    sums.qq = sums.qq + wq * q;
    sums.q = sums.q + wq;
    sums.qx = sums.qx + wq * b.x[i];
  }
  return sums;
}

/// The error for given levels, less sum of w x x.
template <int N, int W>
INFER_INLINE F32<W> affine_error(const Blocks<N, W>& b, const LevelSums<W>& t,
                                 const Affine<W>& fit) {
  const F32<W> two = F32<W>::of(2.0f);
  return fit.s * (fit.s * t.qq - two * t.qx) + fit.m * (fit.m * b.sum_w + two * b.sum_x) -
         two * fit.s * fit.m * t.q;
}

/// The error with the nearest levels.
template <int N, int W>
INFER_INLINE F32<W> affine_error(const Blocks<N, W>& b, const Affine<W>& fit, float top) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> high = F32<W>::of(top);
  // One level only: everything is -m.
  const F32<W> flat = fit.m * (fit.m * b.sum_w + F32<W>::of(2.0f) * b.sum_x) + b.sum_xx;
  const F32<W> inverse = inverse_of(fit.s);
  const F32<W> offset = fit.m * inverse;
  F32<W> sum = zero;
  for (int i = 0; i < N; ++i) {
    const F32<W> y = b.x[i] * inverse + offset;
    const F32<W> e = round(clamp(y, zero, high)) - y;
    sum = sum + b.w[i] * (e * e);
  }
  return select(fit.s == zero, flat, sum * fit.s * fit.s);
}

/// The best s and m for given levels; `fallback` where they leave it open. `signed_min`: m may be
/// negative.
template <int N, int W>
INFER_INLINE Affine<W> affine_solve(const Blocks<N, W>& b, const LevelSums<W>& t,
                                    const Affine<W>& fallback, bool signed_min) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> inverse_det = inverse_of(max(b.sum_w * t.qq - t.q * t.q, zero));
  Affine<W> r;
  r.s = (b.sum_w * t.qx - b.sum_x * t.q) * inverse_det;
  r.m = (t.q * t.qx - t.qq * b.sum_x) * inverse_det;
  if (!signed_min) {
    const I32<W> below = r.m < zero;
    r.s = select(below, t.qx * inverse_of(t.qq), r.s);
    r.m = select(below, zero, r.m);
  }
  const I32<W> use = r.s > zero;
  return {select(use, r.s, fallback.s), select(use, r.m, fallback.m)};
}

/// Step (1).
template <int N, int W>
INFER_INLINE Affine<W> affine_search(const Blocks<N, W>& b, float top, bool signed_min,
                                     const AffineSearch& how) {
  const F32<W> zero = F32<W>::of(0.0f);
  F32<W> lo = signed_min ? b.x[0] : zero;
  F32<W> hi = b.x[0];
  for (int i = 0; i < N; ++i) {
    lo = min(lo, b.x[i]);
    hi = max(hi, b.x[i]);
  }
  const F32<W> range = hi - lo;
  Affine<W> best{range * F32<W>::of(1.0f / top), zero - lo};
  F32<W> best_error = affine_error(b, affine_levels(b, best, top), best);
  for (int g = 0; g < how.n_grid + how.n_refine; ++g) {
    const float levels = top + how.grid_from + how.grid_step * static_cast<float>(g);
    const Affine<W> start =
        g < how.n_grid ? Affine<W>{range * F32<W>::of(1.0f / levels), zero - lo} : best;
    const LevelSums<W> t = affine_levels(b, start, top);
    const Affine<W> fit = affine_solve(b, t, start, signed_min);
    const F32<W> error = affine_error(b, t, fit);
    const I32<W> better = error < best_error;
    keep(better, error, &best_error);
    keep(better, fit.s, &best.s);
    keep(better, fit.m, &best.m);
  }
  return best;
}

/// s = d sc, m = dmin mn; d and dmin are the same in the lanes of a super-block, and are f16
/// values.
template <int W>
struct AffineScales {
  F32<W> d, dmin, sc, mn;

  INFER_INLINE Affine<W> fit() const { return {d * sc, dmin * mn}; }
};

/// Step (3).
template <int N, int W>
INFER_INLINE void choose_multiples(const Blocks<N, W>& b, float top, float scale_top,
                                   int scale_radius, int min_radius, AffineScales<W>* k) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> limit = F32<W>::of(scale_top);
  const F32<W> half_top = F32<W>::of(0.5f * top);
  const F32<W> inverse_dmin = inverse_of(k->dmin);
  const F32<W> sc = k->sc;
  const F32<W> middle = k->d * sc * half_top - k->dmin * k->mn;
  F32<W> best_error = affine_error(b, k->fit(), top);
  for (int i = -scale_radius; i <= scale_radius; ++i) {
    const F32<W> s = clamp(sc + F32<W>::of(static_cast<float>(i)), zero, limit);
    const F32<W> real = (k->d * s * half_top - middle) * inverse_dmin;
    const F32<W> mid = round(clamp(real, zero, limit));
    for (int j = -min_radius; j <= min_radius; ++j) {
      const F32<W> m = clamp(mid + F32<W>::of(static_cast<float>(j)), zero, limit);
      const F32<W> error = affine_error(b, Affine<W>{k->d * s, k->dmin * m}, top);
      const I32<W> better = error < best_error;
      keep(better, error, &best_error);
      keep(better, s, &k->sc);
      keep(better, m, &k->mn);
    }
  }
}

/// Step (4): the least-squares d and dmin of each super-block of G lanes.
template <int G, int N, int W>
INFER_INLINE void solve_super(const Blocks<N, W>& b, float top, AffineScales<W>* k) {
  const F32<W> zero = F32<W>::of(0.0f);
  const LevelSums<W> t = affine_levels(b, k->fit(), top);
  const F32<W> ss = group_sum<G>(k->sc * k->sc * t.qq);
  const F32<W> sm = group_sum<G>(k->sc * k->mn * t.q);
  const F32<W> mm = group_sum<G>(k->mn * k->mn * b.sum_w);
  const F32<W> sx = group_sum<G>(k->sc * t.qx);
  const F32<W> mx = group_sum<G>(k->mn * b.sum_x);
  // d ss - dmin sm = sx;  d sm - dmin mm = mx
  const F32<W> det = ss * mm - sm * sm;
  const I32<W> solvable = det > F32<W>::of(1e-6f) * ss * mm;
  const F32<W> inverse_det = select(solvable, inverse_of(det), zero);
  const F32<W> d = select(solvable, (sx * mm - mx * sm) * inverse_det, sx * inverse_of(ss));
  const F32<W> dmin = (sx * sm - mx * ss) * inverse_det;
  keep(d > zero, per_lane(d, nearest_half), &k->d);
  keep(dmin > zero, per_lane(dmin, nearest_half), &k->dmin);
}

/// All steps. G blocks make a super-block; multiples lie in [0, scale_top].
template <int G, int N, int W>
INFER_INLINE AffineScales<W> affine_super(const Blocks<N, W>& b, float top, float scale_top,
                                          const AffineSearch& how) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> limit = F32<W>::of(scale_top);
  const Affine<W> real = affine_search(b, top, false, how);
  // (3) may want a larger multiple than the nearest: about 3 % of room.
  const F32<W> room = F32<W>::of(1.0f / (scale_top - scale_top / 32.0f));
  AffineScales<W> k;
  k.d = per_lane(group_extreme<G>(real.s) * room, nearest_half);
  k.dmin = per_lane(group_extreme<G>(real.m) * room, nearest_half);
  k.sc = round(clamp(real.s * inverse_of(k.d), zero, limit));
  k.mn = round(clamp(real.m * inverse_of(k.dmin), zero, limit));
  choose_multiples(b, top, scale_top, how.scale_radius, how.min_radius, &k);
  solve_super<G>(b, top, &k);
  for (int i = 0; i < how.n_again; ++i) {
    choose_multiples(b, top, scale_top, 1, 1, &k);
    solve_super<G>(b, top, &k);
  }
  return k;
}

/// The nearest levels.
template <int N, int W>
INFER_INLINE void affine_quantise(const Blocks<N, W>& b, const Affine<W>& fit, float top,
                                  F32<W> (&q)[N]) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> high = F32<W>::of(top);
  const F32<W> inverse = inverse_of(fit.s);
  const F32<W> offset = fit.m * inverse;
  for (int i = 0; i < N; ++i) q[i] = round(clamp(b.x[i] * inverse + offset, zero, high));
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
