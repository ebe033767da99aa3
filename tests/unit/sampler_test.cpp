#include "core/text/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infer::text {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

int32_t draw(Sampler& sampler, const std::vector<float>& logits, uint64_t position) {
  const auto best = std::max_element(logits.begin(), logits.end());
  return sampler.sample(logits, *best, static_cast<int32_t>(best - logits.begin()), position);
}

std::vector<float> random_logits(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(rng);
  return logits;
}

/// The definition, spelled out: probabilities of all tokens after top-k, top-p, min-p and
/// temperature.
std::vector<double> wanted(const std::vector<float>& logits, const SamplingParams& p) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  while (!order.empty() && logits[order.back()] == -kInf) order.pop_back();
  if (p.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(p.top_k)));
  const auto min_keep = static_cast<size_t>(std::max(p.min_keep, 1));
  const auto weight = [&](size_t i, double temp) {
    return std::exp((static_cast<double>(logits[i]) - logits[order[0]]) / temp);
  };
  if (p.top_p < 1.0f) {
    double total = 0.0, sum = 0.0;
    for (size_t i : order) total += weight(i, 1.0);
    for (size_t n = 1; n <= order.size(); ++n) {
      sum += weight(order[n - 1], 1.0);
      if (n >= min_keep && sum >= static_cast<double>(p.top_p) * total) order.resize(n);
    }
  }
  if (p.min_p > 0.0f) {
    while (order.size() > min_keep && weight(order.back(), 1.0) < static_cast<double>(p.min_p))
      order.pop_back();
  }
  std::vector<double> out(logits.size(), 0.0);
  double total = 0.0;
  for (size_t i : order) total += weight(i, p.temp);
  for (size_t i : order) out[i] = weight(i, p.temp) / total;
  return out;
}

/// Upper bound of chi-square with `dof` degrees of freedom at p = 1e-4 (Wilson and Hilferty, 1931;
/// z = 3.719).
double chi_square_limit(double dof) {
  const double a = 2.0 / (9.0 * dof);
  return dof * std::pow(1.0 - a + 3.719 * std::sqrt(a), 3.0);
}

void expect_distribution(const std::vector<float>& logits, const SamplingParams& params) {
  constexpr int kDraws = 10000;
  const std::vector<double> p = wanted(logits, params);
  std::vector<int> count(logits.size(), 0);
  Sampler sampler(params, static_cast<int32_t>(logits.size()));
  for (int i = 0; i < kDraws; ++i)
    ++count[static_cast<size_t>(draw(sampler, logits, static_cast<uint64_t>(i)))];
  double chi = 0.0, rare_want = 0.0, rare_got = 0.0;
  int n_bin = 0;
  const auto add = [&](double got, double want) {
    chi += (got - want) * (got - want) / want;
    ++n_bin;
  };
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0) {
      EXPECT_EQ(count[i], 0) << "token " << i << " is cut off";
    } else if (p[i] * kDraws < 10.0) {  // too rare for a bin of its own
      rare_want += p[i] * kDraws;
      rare_got += count[i];
    } else {
      add(count[i], p[i] * kDraws);
    }
  }
  if (rare_want >= 10.0) add(rare_got, rare_want);
  if (n_bin < 2) return;
  EXPECT_TRUE(chi <= chi_square_limit(n_bin - 1)) << chi << " with " << n_bin << " bins";
}

/// Known answers of Random123's kat_vectors, "philox4x32 10".
TEST(Philox, GivesThePublishedNumbers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsInRangeAndDependsOnBothArguments) {
  std::set<double> seen;
  double sum = 0.0;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    for (uint64_t at = 0; at < 1000; ++at) {
      const double u = uniform_at(seed, at << (at % 2 == 0 ? 0 : 33));
      ASSERT_TRUE(u >= 0.0 && u < 1.0);
      seen.insert(u);
      sum += u;
    }
  }
  EXPECT_EQ(seen.size(), 4000u);
  EXPECT_TRUE(std::abs(sum / 4000 - 0.5) <= 0.025);  // 5 standard errors
}

TEST(Sampler, DistributionIsTheDefined) {
  std::vector<float> logits = random_logits(80, 3);
  logits[7] = logits[8];
  logits[20] = -kInf;
  logits[0] = -kInf;
  const SamplingParams off{.temp = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = 11};
  const auto with = [&](auto change) {
    SamplingParams p = off;
    change(p);
    return p;
  };
  for (const SamplingParams& params :
       {off, with([](auto& p) { p.temp = 0.6f; }), with([](auto& p) { p.temp = 1.7f; }),
        with([](auto& p) { p.top_k = 5; }), with([](auto& p) { p.top_k = 79; }),
        with([](auto& p) { p.top_p = 0.7f; }), with([](auto& p) { p.top_p = 0.99f; }),
        with([](auto& p) { p.min_p = 0.1f; }), with([](auto& p) { p.top_k = 40, p.top_p = 0.9f; }),
        with([](auto& p) { p.top_p = 0.95f, p.min_p = 0.05f, p.temp = 2.0f; }),
        with([](auto& p) { p.min_p = 0.9f, p.min_keep = 4; }),
        with([](auto& p) { p.top_p = 0.01f, p.min_keep = 3; }), SamplingParams{.seed = 5}}) {
    SCOPED_TRACE(testing::Message() << "temp " << params.temp << " top_k " << params.top_k
                                    << " top_p " << params.top_p << " min_p " << params.min_p);
    expect_distribution(logits, params);
  }
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  const std::vector<float> logits{1.0f, 3.0f, 3.0f, -2.0f};
  for (const SamplingParams& params :
       {SamplingParams{.temp = 0.0f}, SamplingParams{.temp = -1.0f}, SamplingParams{.top_k = 1},
        SamplingParams{.temp = 1.0f, .top_k = 0, .top_p = 0.0f}}) {
    Sampler sampler(params, 4);
    for (uint64_t at = 0; at < 50; ++at) EXPECT_EQ(draw(sampler, logits, at), 1);
  }
}

TEST(Sampler, MinusInfinityIsNeverDrawn) {
  std::vector<float> logits(64, -kInf);
  logits[9] = -50.0f;
  logits[33] = -60.0f;
  std::set<int32_t> seen;
  Sampler sampler({.temp = 30.0f, .top_k = 40, .top_p = 1.0f, .min_p = 0.0f}, 64);
  for (uint64_t at = 0; at < 500; ++at) seen.insert(draw(sampler, logits, at));
  EXPECT_THAT(seen, testing::ElementsAre(9, 33));
  std::fill(logits.begin(), logits.end(), -kInf);
  EXPECT_EQ(draw(sampler, logits, 0), 0);  // nothing is left: the argmax that came in
}

TEST(Sampler, DependsOnSeedAndPositionOnly) {
  const std::vector<float> logits = random_logits(100, 5);
  Sampler a({.seed = 1}, 100), b({.seed = 1}, 100), other({.seed = 2}, 100);
  int n_differ = 0;
  for (uint64_t at = 0; at < 200; ++at) {
    const int32_t drawn = draw(a, logits, at);
    draw(b, random_logits(100, static_cast<uint32_t>(at)), at + 1000);
    EXPECT_EQ(draw(b, logits, at), drawn);
    n_differ += draw(other, logits, at) != drawn;
  }
  EXPECT_GT(n_differ, 20);
}

TEST(Sampler, TopSelectionEqualsSorting) {
  std::mt19937 rng(9);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(1 + rng() % 200);
    for (float& x : logits) x = rng() % 10 == 0 ? -kInf : static_cast<float>(rng() % 20);
    const size_t k = rng() % 220;
    std::vector<Candidate> got, want;
    select_top(logits, k, got);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] > -kInf) want.push_back({logits[i], static_cast<int32_t>(i)});
    }
    std::sort(want.begin(), want.end(), better);
    want.resize(std::min(want.size(), k));
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i].id, want[i].id) << "round " << round;
  }
}

TEST(Sampler, ParametersOutOfRangeAreNamed) {
  const auto message = [](const SamplingParams& p) {
    const Result<void> r = validate(p);
    return r.ok() ? std::string() : r.error().message;
  };
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({.temp = -1.0f, .top_k = -1, .top_p = 2.0f, .min_p = -1.0f}), "");
  EXPECT_THAT(message({.temp = std::nanf("")}), testing::HasSubstr("temp"));
  EXPECT_THAT(message({.temp = kInf}), testing::HasSubstr("temp"));
  EXPECT_THAT(message({.top_p = std::nanf("")}), testing::HasSubstr("top_p"));
  EXPECT_THAT(message({.top_p = -0.1f}), testing::HasSubstr("top_p = -0.1"));
  EXPECT_THAT(message({.min_p = std::nanf("")}), testing::HasSubstr("min_p"));
  EXPECT_THAT(message({.min_p = 1.5f}), testing::HasSubstr("min_p = 1.5"));
  EXPECT_THAT(message({.min_keep = -1}), testing::HasSubstr("min_keep"));
}

}  // namespace
}  // namespace infer::text
