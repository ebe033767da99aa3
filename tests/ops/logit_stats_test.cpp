#include <algorithm>

#include "tests/ops/ops_support.h"

namespace infer::test {
namespace {

class LogitStatsOp : public IsaTest {
 protected:
  kern::LogitStats run(std::span<const float> x) {
    kern::LogitStats stats{.max = 7.0f, .argmax = 7, .sum_exp = 7.0, .has_nan = true};
    kernels.logit_stats(x.data(), static_cast<int64_t>(x.size()), &stats);
    return stats;
  }
};

// Each term e^(x - max) is wrong by u |x - max| (the subtraction in f32) + 2 ulp = 4 u, relative;
// sums are f64.
TEST_P(LogitStatsOp, MatchesF64) {
  for (const int64_t n : {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 1000, 49152, 262144}) {
    for (const float size : {0.1f, 15.0f, 300.0f}) {
      const std::vector<float> x = uniforms(n, -size, size);
      const float max = *std::max_element(x.begin(), x.end());
      double sum = 0.0, bound = 0.0;
      for (const float v : x) {
        const double e = std::exp(static_cast<double>(v) - max);
        sum += e;
        bound += e * kEps * (std::fabs(static_cast<double>(v) - max) + 4.0) + 1e-37;
      }
      bound += sum * static_cast<double>(n) * 0x1p-52;
      const kern::LogitStats s = run(x);
      ASSERT_TRUE(same_bits(s.max, max)) << "n " << n;
      ASSERT_EQ(s.argmax, std::max_element(x.begin(), x.end()) - x.begin()) << "n " << n;
      ASSERT_FALSE(s.has_nan);
      ASSERT_TRUE(std::fabs(s.sum_exp - sum) <= bound)
          << "n " << n << " " << s.sum_exp << " " << sum;
    }
  }
}

// The exponential alone, by a pair {0, x}: at most 2 ulp, exactly 0 at -inf, flushed only below the
// normal range.
TEST_P(LogitStatsOp, ExponentialWithinTwoUlp) {
  double worst = 0.0;
  for (int i = 0; i <= 400000; ++i) {
    const float x = -static_cast<float>(i) * (70.0f / 400000.0f);
    const double e = run(std::vector<float>{0.0f, x}).sum_exp - 1.0;
    // Adding to 1 in f64 rounds to 2^-53; only terms that keep f32's digits through it are judged
    // in ulp.
    const double want = std::exp(static_cast<double>(x));
    const double err = std::fabs(e - want);
    ASSERT_TRUE(err <= 2.0 * ulp_of(want) + 0x1p-52)
        << "x " << x << " got " << e << " want " << want;
    if (want > 1e-6) worst = std::max(worst, err / ulp_of(want));
  }
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_EQ(run(std::vector<float>{0.0f, -kInf}).sum_exp, 1.0);
}

TEST_P(LogitStatsOp, LowestIndexAmongEquals) {
  for (const size_t n : {3u, 8u, 17u, 100u}) {
    for (size_t first = 0; first < n; ++first) {
      std::vector<float> x(n, -1.0f);
      x[first] = 2.0f;
      x[n - 1] = 2.0f;
      ASSERT_EQ(run(x).argmax, static_cast<int32_t>(first)) << "n " << n;
    }
  }
  EXPECT_EQ(run(std::vector<float>{-0.0f, 0.0f}).argmax, 0);
}

TEST_P(LogitStatsOp, MinusInfinityIsNoProbability) {
  std::vector<float> x(21, -kInf);
  x[13] = -4.0f;
  const kern::LogitStats s = run(x);
  EXPECT_EQ(s.max, -4.0f);
  EXPECT_EQ(s.argmax, 13);
  EXPECT_EQ(s.sum_exp, 1.0);
  EXPECT_FALSE(s.has_nan);
}

TEST_P(LogitStatsOp, NaNAndInfinityAreReported) {
  for (const size_t n : {1u, 5u, 8u, 16u, 23u, 100u}) {
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> x = uniforms(static_cast<int64_t>(n), -5.0f, 5.0f);
      x[at] = kNaN;
      ASSERT_TRUE(run(x).has_nan) << "n " << n << " at " << at;
      x[at] = kInf;
      ASSERT_TRUE(run(x).has_nan) << "n " << n << " at " << at;
    }
    EXPECT_TRUE(run(std::vector<float>(n, -kInf)).has_nan);
  }
}

TEST_P(LogitStatsOp, PlaceAndNeighboursDoNotMatter) {
  for (const size_t n : {5u, 16u, 29u, 1000u}) {
    const std::vector<float> x = uniforms(static_cast<int64_t>(n), -9.0f, 9.0f);
    const kern::LogitStats want = run(x);
    for (size_t offset = 1; offset < 9; ++offset) {
      std::vector<float> buffer(n + 40, kNaN);
      std::copy(x.begin(), x.end(), buffer.begin() + static_cast<int64_t>(offset));
      const kern::LogitStats got = run(std::span(buffer).subspan(offset, n));
      ASSERT_EQ(got.sum_exp, want.sum_exp);
      ASSERT_EQ(got.argmax, want.argmax);
      ASSERT_FALSE(got.has_nan);
    }
  }
}

INFER_FOR_EACH_ISA(LogitStatsOp);

}  // namespace
}  // namespace infer::test
