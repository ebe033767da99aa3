#include <cmath>
#include <limits>

#include "kernels/cpu/generic/nonlinear.h"

/// Order of summation: elements in sequence, in f64.
namespace infer::kern::generic {

void logit_stats(const float* x, int64_t n, LogitStats* stats) {
  float max = -std::numeric_limits<float>::infinity();
  int64_t argmax = 0;
  bool nan = false;
  for (int64_t i = 0; i < n; ++i) {
    nan = nan || x[i] != x[i];
    if (x[i] > max) {
      max = x[i];
      argmax = i;
    }
  }
  *stats = LogitStats{};
  stats->max = max;
  stats->argmax = static_cast<int32_t>(argmax);
  stats->has_nan = nan || !std::isfinite(max);
  if (stats->has_nan) {
    stats->sum_exp = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - max);
  stats->sum_exp = sum;
}

}  // namespace infer::kern::generic
