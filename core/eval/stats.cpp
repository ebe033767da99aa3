#include "core/eval/stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "core/base/check.h"
#include "core/base/error.h"

namespace infer::eval {

double median(std::span<const double> x) {
  INFER_CHECK(!x.empty(), "median of nothing");
  std::vector<double> sorted(x.begin(), x.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
}

double mean(std::span<const double> x) {
  INFER_CHECK(!x.empty(), "mean of nothing");
  double sum = 0.0;
  for (const double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

double standard_deviation(std::span<const double> x) {
  if (x.size() < 2) return 0.0;
  const double centre = mean(x);
  double sum = 0.0;
  for (const double v : x) sum += (v - centre) * (v - centre);
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

double student_t95(int64_t df) {
  INFER_CHECK(df >= 1, "df = {}", df);
  constexpr double kSmall[] = {12.706205, 4.302653, 3.182446, 2.776445, 2.570582,
                               2.446912,  2.364624, 2.306004, 2.262157};
  if (df <= std::ssize(kSmall)) return kSmall[df - 1];
  const double z = 1.959963985;  // of the normal distribution
  const double z2 = z * z;
  const auto n = static_cast<double>(df);
  const double g1 = (z2 + 1.0) * z / 4.0;
  const double g2 = ((5.0 * z2 + 16.0) * z2 + 3.0) * z / 96.0;
  const double g3 = (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) * z / 384.0;
  const double g4 =
      ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) * z / 92160.0;
  return z + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n;
}

Proportion proportion(int64_t k, int64_t n) {
  INFER_CHECK(k >= 0 && k <= n, "{} of {}", k, n);
  const auto count = static_cast<double>(n);
  Proportion r;
  r.p = static_cast<double>(k) / count;
  r.error = n > 1 ? std::sqrt(r.p * (1.0 - r.p) / (count - 1.0)) : n == 1 ? 0.0 : r.p;
  if (n == 0) return r;
  const double z = 1.959963984540054;
  const double z2n = z * z / count;
  const double middle = (r.p + z2n / 2.0) / (1.0 + z2n);
  const double half = z * std::sqrt(r.p * (1.0 - r.p) / count + z2n / (4.0 * count)) / (1.0 + z2n);
  r.low = std::max(0.0, middle - half);
  r.high = std::min(1.0, middle + half);
  return r;
}

double mcnemar_p(int64_t n_a, int64_t n_b) {
  const int64_t n = n_a + n_b;
  if (n == 0) return 1.0;
  const auto count = static_cast<double>(n);
  double tail = 0.0;  // P(X <= min) of a fair coin
  for (int64_t k = 0; k <= std::min(n_a, n_b); ++k) {
    const auto i = static_cast<double>(k);
    tail += std::exp(std::lgamma(count + 1.0) - std::lgamma(i + 1.0) -
                     std::lgamma(count - i + 1.0) - count * std::numbers::ln2);
  }
  return std::min(1.0, 2.0 * tail);
}

double MeanError::error() const {
  if (n_ < 2) return 0.0;
  const auto n = static_cast<double>(n_);
  const double variance = sum_sq_ / n - mean() * mean();
  return variance > 0.0 ? std::sqrt(variance / (n - 1.0)) : 0.0;
}

Result<PairedRatio> paired_ratio(std::span<const double> a, std::span<const double> b) {
  if (a.empty() || a.size() != b.size())
    return make_error(ErrorCode::kInvalidArgument, "{} and {} values make no pairs", a.size(),
                      b.size());
  std::vector<double> ratios, logs;
  for (size_t i = 0; i < a.size(); ++i) {
    for (const double v : {a[i], b[i]}) {
      if (!(v > 0.0) || !std::isfinite(v))
        return make_error(ErrorCode::kInvalidArgument, "pair {}: {} is no positive number", i + 1,
                          v);
    }
    ratios.push_back(a[i] / b[i]);
    logs.push_back(std::log(a[i] / b[i]));
  }
  const double centre = mean(logs);
  PairedRatio r{.ratio = std::exp(centre), .median = median(ratios)};
  r.low = r.high = std::numeric_limits<double>::quiet_NaN();
  if (logs.size() > 1) {
    const auto n = static_cast<double>(logs.size());
    const double half = student_t95(std::ssize(logs) - 1) * standard_deviation(logs) / std::sqrt(n);
    r.low = std::exp(centre - half);
    r.high = std::exp(centre + half);
  }
  return r;
}

}  // namespace infer::eval
