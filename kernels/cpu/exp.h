#pragma once

/// e^x for vectors of any width. Force-inlined: nothing here becomes a symbol.
namespace infer::kern {

/// e^x for x <= 0: at most 1.1 ulp; 0 for x < -87.33 (where e^x < 2^-126 leaves the normal range)
/// and for -inf. x = n ln2 + r, |r| <= ln2 / 2, with ln2 in two parts; degree 6 in r; exact 1 at 0.
/// V: a level's vector class with Reg, set1, fma (a * b + c), fnma (c - a * b), sub, mul, and
///   pow2(s): 2^n by its bits where s = n + 1.5 * 2^23;  zero_below(x, bound, y): x < bound ? 0 :
///   y.
template <class V>
[[gnu::always_inline]] inline typename V::Reg exp_nonpos_of(typename V::Reg x) {
  const auto magic = V::set1(0x1.8p23f);  // its ulp is 1: adding it rounds to an integer
  const auto shifted = V::fma(x, V::set1(1.44269504f), magic);
  const auto n = V::sub(shifted, magic);
  auto r = V::fnma(n, V::set1(0x1.62e4p-1f), x);
  r = V::fnma(n, V::set1(0x1.7f7d1cp-20f), r);
  auto p = V::set1(0.00138145965f);
  p = V::fma(p, r, V::set1(0.00836871751f));
  p = V::fma(p, r, V::set1(0.041668389f));
  p = V::fma(p, r, V::set1(0.166665211f));
  p = V::fma(p, r, V::set1(0.49999994f));
  p = V::fma(p, r, V::set1(1.0f));
  p = V::fma(p, r, V::set1(1.0f));
  // Multiplied, not added to p's bits, so that a NaN stays one.
  return V::zero_below(x, -87.33f, V::mul(p, V::pow2(shifted)));
}

}  // namespace infer::kern
