#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/sampler.h"
#include "core/text/samplers/breakers.h"
#include "core/text/samplers/mirostat.h"
#include "core/text/samplers/stage.h"
#include "core/text/samplers/token_window.h"
#include "tests/unit/sampler_reference.h"

/// Stages that look at the tokens before, worked out by hand.
namespace infer::text {
namespace {

using testing::ElementsAre;
using testing::Pair;

/// The logits that a stage leaves of zeros (or of `row`) after `past`.
std::vector<float> after(Stage& stage, const std::vector<int32_t>& past, std::vector<float> row) {
  for (int32_t token : past) stage.accept(token);
  const auto best = std::max_element(row.begin(), row.end());
  Candidates candidates;
  candidates.reset(row, static_cast<int32_t>(best - row.begin()));
  stage.apply(candidates, {});
  std::vector<float> left(row.size(), -std::numeric_limits<float>::infinity());
  for (const Candidate& c : candidates.list()) left[static_cast<size_t>(c.id)] = c.logit;
  return left;
}

StageContext context_of(int32_t n_vocab) {
  return {.n_vocab = n_vocab, .max_tokens = 100, .piece = nullptr};
}

TEST(TokenWindow, KeepsTheLast) {
  TokenWindow window(3);
  EXPECT_EQ(window.push(1), std::nullopt);
  EXPECT_EQ(window.newest(0), 1);
  window.push(2);
  window.push(3);
  EXPECT_EQ(window.push(4), 1);
  EXPECT_EQ(window.push(5), 2);
  EXPECT_EQ(window.size(), 3u);
  EXPECT_THAT((std::vector{window.newest(0), window.newest(1), window.newest(2)}),
              ElementsAre(5, 4, 3));
  EXPECT_EQ(TokenWindow(0).push(7), 7);
}

TEST(Penalties, DivideOrMultiplyThenSubtract) {
  const SamplingParams p{
      .penalty_last_n = 4, .penalty_repeat = 2.0f, .penalty_freq = 0.5f, .penalty_present = 0.25f};
  const auto stage = make_penalties(p, context_of(5));
  // The window is 1 1 3 3: token 0 has fallen out.
  EXPECT_THAT(
      after(*stage, {0, 1, 1, 3, 3}, {4.0f, 4.0f, 4.0f, -4.0f, 0.0f}),
      ElementsAre(4.0f, 4.0f / 2 - 2 * 0.5f - 0.25f, 4.0f, -4.0f * 2 - 2 * 0.5f - 0.25f, 0.0f));
  EXPECT_THAT(after(*stage, {2, 2, 3}, {4.0f, 4.0f, 4.0f, -4.0f, 0.0f}),
              ElementsAre(4.0f, 4.0f, 4.0f / 2 - 2 * 0.5f - 0.25f, -8.0f - 2 * 0.5f - 0.25f, 0.0f));
}

TEST(Dry, ExampleOfItsAuthors) {
  // a b c c b c y a b c: "a b c" was followed by c (3 tokens match), "b c" by y (2), "c" by b (1).
  enum : int32_t { a, b, c, y, z };
  const std::vector<int32_t> past{a, b, c, c, b, c, y, a, b, c};
  SamplingParams p{.dry_multiplier = 1.0f, .dry_base = 2.0f, .dry_allowed_length = 1};
  const std::vector<float> zeros(5, 0.0f);
  EXPECT_THAT(after(*make_dry(p, context_of(5)), past, zeros),
              ElementsAre(0.0f, -1.0f, -4.0f, -2.0f, 0.0f));
  p.dry_allowed_length = 2;
  EXPECT_THAT(after(*make_dry(p, context_of(5)), past, zeros),
              ElementsAre(0.0f, 0.0f, -2.0f, -1.0f, 0.0f));
  p.dry_penalty_last_n = 8;  // c c b c y a b c: of "a b c" there is no other
  EXPECT_THAT(after(*make_dry(p, context_of(5)), past, zeros),
              ElementsAre(0.0f, 0.0f, 0.0f, -1.0f, 0.0f));
}

TEST(Dry, NothingReachesAcrossABreaker) {
  const std::vector<std::string> pieces{"x", "y", "z", "\n", ". ", "Us", "er:", "r", "e"};
  const std::function<std::string_view(int32_t)> piece = [&](int32_t id) -> std::string_view {
    return pieces[static_cast<size_t>(id)];
  };
  StageContext context = context_of(9);
  context.piece = &piece;
  SamplingParams p{.dry_multiplier = 1.0f, .dry_base = 2.0f, .dry_allowed_length = 1};
  p.dry_breakers = {"\n", "User:"};
  const std::vector<float> zeros(9, 0.0f);
  // x y \n x y: only "x y" counts, though "\n" would be a match too; y is followed by \n, which is
  // a breaker and stays.
  EXPECT_EQ(after(*make_dry(p, context), {3, 0, 1, 2, 3, 0, 1}, zeros)[2], -2.0f);
  EXPECT_EQ(after(*make_dry(p, context), {0, 1, 3, 0, 1}, zeros), zeros);
  // "Us" "er:" is a breaker over two tokens: one token is free behind it.
  EXPECT_EQ(after(*make_dry(p, context), {5, 6, 0, 1, 5, 6, 0}, zeros)[1], -1.0f);
  p.dry_breakers = {"\n"};
  EXPECT_EQ(after(*make_dry(p, context), {5, 6, 0, 1, 5, 6, 0}, zeros)[1], -4.0f);
}

TEST(Dry, EqualsTheDefinitionOnRandomPasts) {
  std::mt19937 rng(2);
  reference::Past past;
  past.pieces = {"a", "b", "ab", "c", "", "a:", "\n", "bc"};
  const std::function<std::string_view(int32_t)> piece = [&](int32_t id) -> std::string_view {
    return past.pieces[static_cast<size_t>(id)];
  };
  StageContext context = context_of(8);
  context.piece = &piece;
  for (int round = 0; round < 1000; ++round) {
    SamplingParams p{.temp = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f};
    p.dry_multiplier = 0.5f;
    p.dry_base = 1.25f;
    p.dry_allowed_length = static_cast<int32_t>(rng() % 4);
    p.dry_penalty_last_n = rng() % 3 == 0 ? -1 : static_cast<int32_t>(1 + rng() % 20);
    p.dry_breakers.clear();
    if (rng() % 2 == 0) p.dry_breakers = {rng() % 2 == 0 ? "abc" : "ba", "\n"};
    past.tokens.clear();
    const uint32_t n_kind = 2 + static_cast<uint32_t>(rng() % 7);
    for (size_t n = rng() % 40; n > 0; --n)
      past.tokens.push_back(static_cast<int32_t>(rng() % n_kind));
    const std::vector<float> row{0.5f, 0.25f, 0.0f, 1.0f, -1.0f, 2.0f, 0.75f, 1.5f};
    const std::vector<float> got = after(*make_dry(p, context), past.tokens, row);
    double sum = 0.0;
    for (float x : got) sum += std::exp(static_cast<double>(x));
    const std::vector<double> want = reference::probabilities(row, p, past);
    for (size_t i = 0; i < row.size(); ++i)
      ASSERT_TRUE(std::abs(std::exp(static_cast<double>(got[i])) / sum - want[i]) <= 1e-6)
          << "round " << round << " token " << i;
  }
}

TEST(Breakers, CountTokensBehindTheLast) {
  const auto free = [](std::vector<std::string> breakers, const std::vector<std::string>& pieces) {
    Breakers b(std::move(breakers));
    for (const std::string& piece : pieces) b.push(piece);
    return b.n_free();
  };
  EXPECT_EQ(free({}, {"a", "b"}), 2u);
  EXPECT_EQ(free({"x"}, {}), 0u);
  EXPECT_EQ(free({"b"}, {"a", "bcd", "c", "e"}), 2u);
  EXPECT_EQ(free({"abcd"}, {"xa", "b", "", "c", "dz", "y"}), 1u);
  EXPECT_EQ(free({"abcd"}, {"xa", "b", "c"}), 3u);
  EXPECT_EQ(free({"aab"}, {"a", "a", "a", "b", "c"}), 1u);
  EXPECT_EQ(free({"abcdef", "cd"}, {"abc", "d", "e", "f", "g"}), 1u);
  EXPECT_EQ(free({"abcdef", "cd"}, {"abc", "d", "e", "g"}), 2u);
  EXPECT_EQ(free({"ab"}, {"abab", "a", "x", "b"}), 3u);
}

TEST(Mirostat, CutsAtMuAndFollowsTheSurprise) {
  // p = 1/2, 1/4, 1/8, 1/8: surprises of 1, 2, 3, 3 bits.
  const std::vector<float> row{std::log(0.5f), std::log(0.25f), std::log(0.125f), std::log(0.125f)};
  const auto left = [&](double tau) {
    Mirostat m(tau, 0.1);
    Candidates candidates;
    candidates.reset(row, 0);
    m.truncate(candidates);
    return candidates.list().size();
  };
  EXPECT_EQ(left(0.25), 1u);  // mu = 2 tau = 0.5: all are too surprising, the best stays
  EXPECT_EQ(left(0.6), 1u);
  EXPECT_EQ(left(1.1), 2u);
  EXPECT_EQ(left(1.6), 4u);
  Mirostat m(1.1, 0.5);
  Candidates candidates;
  candidates.reset(row, 0);
  m.truncate(candidates);
  EXPECT_TRUE(std::abs(m.surprise(row[1]) - 2.0) <= 1e-6);  // not log2(3) as within what is left
  m.observe(2.0);
  EXPECT_TRUE(std::abs(m.mu() - (2.2 - 0.5 * (2.0 - 1.1))) <= 1e-12);
}

/// The mean surprise of a long text comes near tau, which is what it is for.
TEST(Mirostat, HoldsTheSurprise) {
  std::mt19937 rng(8);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> row(500);
  for (const float tau : {2.0f, 3.0f, 8.0f}) {
    SamplingParams p{.temp = 1.0f, .seed = 3, .mirostat = 2, .mirostat_tau = tau};
    Sampler sampler(p, {.n_vocab = 500, .max_tokens = 1000, .piece = {}});
    double sum = 0.0;
    constexpr int kTokens = 500;
    for (int at = 0; at < kTokens; ++at) {
      for (size_t i = 0; i < row.size(); ++i)
        row[i] = normal(rng) - 1.5f * std::log(static_cast<float>(i + 1));
      const auto best = std::max_element(row.begin(), row.end());
      const int32_t id = sampler.sample(row, *best, static_cast<int32_t>(best - row.begin()),
                                        static_cast<uint64_t>(at));
      sampler.accept(id);
      double total = 0.0;
      for (float x : row) total += std::exp(static_cast<double>(x));
      sum += std::log2(total) - row[static_cast<size_t>(id)] / std::log(2.0);
    }
    const bool reachable = tau < 6.0f;  // the rows themselves have about 4.2 bits
    if (reachable) {
      EXPECT_TRUE(std::abs(sum / kTokens - tau) <= 0.15 * tau) << tau << ": " << sum / kTokens;
    } else {
      EXPECT_TRUE(sum / kTokens < tau) << sum / kTokens;
    }
  }
}

TEST(Mirostat, AnotherTokenPutInItsPlaceLeavesMuAlone) {
  const std::vector<float> row{std::log(0.5f), std::log(0.25f), std::log(0.125f), std::log(0.125f)};
  SamplingParams p{.temp = 1.0f, .mirostat = 2, .mirostat_tau = 1.0f, .mirostat_eta = 10.0f};
  Sampler forced(p, {.n_vocab = 4, .max_tokens = 1000, .piece = {}});
  Sampler fresh(p, {.n_vocab = 4, .max_tokens = 1000, .piece = {}});
  for (uint64_t at = 0; at < 50; ++at) {
    const int32_t id = forced.sample(row, row[0], 0, at);
    EXPECT_EQ(fresh.sample(row, row[0], 0, at), id);
    forced.accept(id == 0 ? 1 : 0);
  }
}

}  // namespace
}  // namespace infer::text
