#pragma once

#include <cstdint>
#include <span>

#include "core/base/result.h"

/// Statistics of measurements.
namespace infer::eval {

/// Needs: x not empty. The mean of the middle two when their number is even.
double median(std::span<const double> x);
double mean(std::span<const double> x);
/// Of a sample (n - 1); 0 for one value.
double standard_deviation(std::span<const double> x);

/// The two-sided 95 % point of Student's t: P(|T| > value) = 0.05. Needs: df >= 1.
/// Source: Abramowitz and Stegun, 26.7.5 (expansion in 1/df) from df = 10 on, exact values below.
double student_t95(int64_t df);

/// A share with its uncertainty, all in 0..1.
struct Proportion {
  double p = 0.0, error = 0.0;   ///< k / n; sqrt(p (1 - p) / (n - 1)), 0 for n < 2
  double low = 0.0, high = 1.0;  ///< 95 % interval of Wilson, which never leaves 0..1
};
/// k of n. For n = 0 everything is NaN but the interval, which is 0..1.
Proportion proportion(int64_t k, int64_t n);

/// McNemar's exact test: how likely a split as uneven as n_a : n_b or more is when both sides win
/// with probability 1/2 (two-sided, 1 at most). 1 for no cases.
double mcnemar_p(int64_t n_a, int64_t n_b);

/// Sums of a measured quantity: mean and its standard error, as llama-perplexity has them (variance
/// over n, then divided by n - 1).
class MeanError {
 public:
  void add(double v) { sum_ += v, sum_sq_ += v * v, ++n_; }
  void add(const MeanError& o) { sum_ += o.sum_, sum_sq_ += o.sum_sq_, n_ += o.n_; }
  int64_t n() const { return n_; }
  double sum() const { return sum_; }
  double mean() const { return sum_ / static_cast<double>(n_); }
  double error() const;  ///< 0 for fewer than two values

 private:
  double sum_ = 0.0, sum_sq_ = 0.0;
  int64_t n_ = 0;
};

/// How many times larger a[i] is than b[i], from pairs measured next to each other.
struct PairedRatio {
  double ratio = 0.0;   ///< geometric mean of a[i] / b[i]
  double median = 0.0;  ///< of a[i] / b[i]
  /// 95 % confidence interval of `ratio`: t-interval of the mean of log(a[i] / b[i]). It takes the
  /// pairs for independent and their log-ratios for normal. NaN for a single pair.
  double low = 0.0, high = 0.0;
};
/// Errors: kInvalidArgument for no pairs, unequal numbers, or a value that is not positive and
/// finite.
Result<PairedRatio> paired_ratio(std::span<const double> a, std::span<const double> b);

}  // namespace infer::eval
