#include "core/eval/stats.h"

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace infer::eval {
namespace {

TEST(EvalStats, MedianMeanAndSpread) {
  EXPECT_EQ(median(std::vector<double>{3, 1, 2}), 2.0);
  EXPECT_EQ(median(std::vector<double>{4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median(std::vector<double>{7}), 7.0);
  EXPECT_EQ(mean(std::vector<double>{1, 2, 6}), 3.0);
  EXPECT_EQ(standard_deviation(std::vector<double>{7}), 0.0);
  EXPECT_DOUBLE_EQ(standard_deviation(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9}),
                   std::sqrt(32.0 / 7.0));
}

// Printed in every table of Student's distribution (two-sided 5 %).
TEST(EvalStats, StudentT) {
  for (const auto& [df, t] :
       {std::pair{1, 12.706}, std::pair{2, 4.303}, std::pair{4, 2.776}, std::pair{9, 2.262},
        std::pair{10, 2.228}, std::pair{15, 2.131}, std::pair{30, 2.042}, std::pair{60, 2.000},
        std::pair{120, 1.980}, std::pair{1000000, 1.960}}) {
    EXPECT_NEAR(student_t95(df), t, 6e-4) << df;
  }
}

TEST(EvalStats, RatioOfEqualPairsIsExact) {
  const std::vector<double> a = {2, 4, 6}, b = {1, 2, 3};
  const Result<PairedRatio> r = paired_ratio(a, b);
  ASSERT_TRUE(r.ok());
  EXPECT_NEAR(r->ratio, 2.0, 1e-12);
  EXPECT_NEAR(r->low, 2.0, 1e-12);
  EXPECT_NEAR(r->high, 2.0, 1e-12);
  EXPECT_EQ(r->median, 2.0);
  const Result<PairedRatio> one = paired_ratio(std::vector<double>{3}, std::vector<double>{2});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->median, 1.5);
  EXPECT_TRUE(std::isnan(one->low) && std::isnan(one->high));
}

TEST(EvalStats, RatioRefusesWhatIsNoMeasurement) {
  const std::vector<double> good = {1, 2};
  for (const std::vector<double>& bad :
       {std::vector<double>{}, {1}, {1, 0}, {1, -1}, {1, NAN}, {1, INFINITY}}) {
    EXPECT_FALSE(paired_ratio(good, bad).ok());
    EXPECT_FALSE(paired_ratio(bad, good).ok());
  }
}

// The interval holds the true ratio in 95 % of experiments: 4,000 of five pairs with log-normal
// noise; the count's standard deviation is 13.8, and 5 of them are allowed.
TEST(EvalStats, IntervalCoversAsOftenAsItSays) {
  std::mt19937_64 rng(20240101);
  std::normal_distribution<double> noise(0.0, 0.2), drift(0.0, 1.0);
  int n_covered = 0;
  for (int i = 0; i < 4000; ++i) {
    std::vector<double> a, b;
    for (int pair = 0; pair < 5; ++pair) {
      const double machine = std::exp(drift(rng));  // what both of a pair suffer
      a.push_back(1.25 * machine * std::exp(noise(rng)));
      b.push_back(machine * std::exp(noise(rng)));
    }
    const Result<PairedRatio> r = paired_ratio(a, b);
    ASSERT_TRUE(r.ok());
    n_covered += r->low <= 1.25 && 1.25 <= r->high ? 1 : 0;
  }
  EXPECT_NEAR(n_covered, 3800, 69);
}

// statsmodels: proportion_confint(k, n, method="wilson").
TEST(EvalStats, WilsonInterval) {
  struct Case {
    int64_t k, n;
    double low, high;
  };
  for (const Case& c : {Case{49, 200, 0.190569, 0.309042}, Case{0, 10, 0.0, 0.277533},
                        Case{10, 10, 0.722467, 1.0}, Case{1, 1, 0.206549, 1.0}}) {
    const Proportion p = proportion(c.k, c.n);
    EXPECT_NEAR(p.low, c.low, 1e-5) << c.k << " of " << c.n;
    EXPECT_NEAR(p.high, c.high, 1e-5) << c.k << " of " << c.n;
  }
  EXPECT_NEAR(100.0 * proportion(49, 200).error, 3.0488, 5e-5);  // llama.cpp's line for these
  EXPECT_TRUE(std::isnan(proportion(0, 0).p));
}

// scipy: binomtest(min(a, b), a + b).pvalue.
TEST(EvalStats, McNemar) {
  EXPECT_EQ(mcnemar_p(0, 0), 1.0);
  EXPECT_EQ(mcnemar_p(3, 3), 1.0);
  EXPECT_NEAR(mcnemar_p(0, 5), 0.0625, 1e-12);
  EXPECT_NEAR(mcnemar_p(10, 2), 0.03857421875, 1e-12);
  EXPECT_NEAR(mcnemar_p(2, 10), 0.03857421875, 1e-12);
  EXPECT_NEAR(mcnemar_p(520, 500), 0.5519226142, 1e-9);
}

TEST(EvalStats, MeanAndItsError) {
  MeanError m;
  for (const double v : {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0}) m.add(v);
  EXPECT_EQ(m.mean(), 5.0);
  EXPECT_NEAR(m.error(), std::sqrt(4.0 / 7.0), 1e-12);
}

}  // namespace
}  // namespace infer::eval
