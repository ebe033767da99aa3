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
