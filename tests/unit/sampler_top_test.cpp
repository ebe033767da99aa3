#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/sampler.h"

/// What is drawn from the best logits of a row against what is drawn from the row.
namespace infer::text {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct RowCase {
  std::vector<float> logits;
  std::vector<Candidate> sorted;  ///< all of them, best first
};

RowCase make_row(std::mt19937& rng, size_t n_vocab, bool coarse) {
  std::normal_distribution<float> normal(0.0f, 2.0f);
  RowCase c;
  for (size_t i = 0; i < n_vocab; ++i) {
    float x = normal(rng);
    if (coarse) x = std::round(x);  // ties everywhere, those at the border too
    if (rng() % 13 == 0) x = -kInf;
    c.logits.push_back(x);
  }
  if (rng() % 4 == 0) std::fill(c.logits.begin(), c.logits.end() - 2, -kInf);
  c.logits[rng() % n_vocab] = coarse ? 2.0f : 6.0f;
  for (size_t i = 0; i < n_vocab; ++i) c.sorted.push_back({c.logits[i], static_cast<int32_t>(i)});
  std::ranges::sort(c.sorted, better);
  return c;
}

SamplingParams random_params(std::mt19937& rng, size_t n_vocab) {
  const auto one_in = [&](uint32_t n) { return rng() % n == 0; };
  SamplingParams p;
  p.seed = rng();
  p.temp = one_in(6) ? 0.0f : one_in(3) ? 1.0f : 0.7f;
  p.top_k = one_in(8) ? 1000 : static_cast<int32_t>(1 + rng() % 50);
  p.top_p = one_in(2) ? 0.9f : 1.0f;
  p.min_p = one_in(2) ? 0.05f : 0.0f;
  p.min_keep = one_in(4) ? 5 : 1;
  if (one_in(3)) p.typical_p = 0.8f;
  if (one_in(3)) p.xtc_probability = 0.7f, p.xtc_threshold = 0.05f;
  if (one_in(4)) p.dynatemp_range = 0.5f;
  if (one_in(3)) {
    for (uint32_t i = 1 + rng() % 4; i > 0; --i)
      p.logit_bias.push_back({static_cast<int32_t>(rng() % n_vocab), -kInf});
  }
  if (one_in(8)) p.logit_bias.push_back({static_cast<int32_t>(rng() % n_vocab), 1.0f});
  if (one_in(4)) p.penalty_repeat = 1.3f;
  if (one_in(10)) p.mirostat = 2, p.mirostat_tau = 2.0f;
  if (one_in(3)) std::ranges::shuffle(p.order, rng);
  return p;
}

struct Counts {
  int n_top = 0, n_whole = 0, n_wrong = 0, n_too_little = 0;
};

void compare(std::mt19937& rng, Counts* counts) {
  const size_t n_vocab = rng() % 3 == 0 ? 3 + rng() % 60 : 64 + rng() % 300;
  const SamplingParams params = random_params(rng, n_vocab);
  const SamplerContext context{
      .n_vocab = static_cast<int32_t>(n_vocab), .max_tokens = 100, .piece = {}};
  Sampler whole(params, context), top(params, context), less(params, context);
  if (top.n_top() < 0) {
    ++counts->n_whole;
    return;
  }
  ++counts->n_top;
  const auto n_top = static_cast<size_t>(top.n_top());
  ASSERT_LE(n_top, n_vocab);
  for (uint64_t at = 0; at < 40; ++at) {
    const RowCase row = make_row(rng, n_vocab, at % 2 == 0);
    const Candidate best = row.sorted.front();
    const std::span<const Candidate> all(row.sorted);
    const int32_t want = whole.sample(row.logits, best.logit, best.id, at);
    const size_t n_given = at % 3 == 0 ? std::min(n_vocab, n_top + 5) : n_top;
    counts->n_wrong += top.sample_top(all.first(n_given), best.logit, best.id, at) != want;
    if (n_top > 0)
      counts->n_too_little +=
          less.sample_top(all.first(n_top - 1), best.logit, best.id, at) != want;
    for (Sampler* s : {&whole, &top, &less}) s->accept(want);
  }
}

TEST(SamplerTop, DrawsWhatTheWholeRowDraws) {
  std::mt19937 rng(17);
  Counts counts;
  for (int round = 0; round < 1200; ++round) compare(rng, &counts);
  EXPECT_EQ(counts.n_wrong, 0);
  EXPECT_GT(counts.n_top, 250);
  EXPECT_GT(counts.n_whole, 250);
  EXPECT_GT(counts.n_too_little, 100);  // one candidate less shows
}

/// Sums over the candidates are rounded in the same order: here the order decides whether two of
/// the four likely tokens make half of the probability, or a third one is kept.
TEST(SamplerTop, ALargerKKeepsTheOrderOfSums) {
  RowCase row;
  for (int32_t i = 0; i < 44; ++i) {
    row.logits.push_back(i < 40 ? -36.7f : 0.0f);
    row.sorted.push_back({row.logits.back(), i});
  }
  std::ranges::sort(row.sorted, better);
  SamplingParams params;
  params.temp = 1.0f;
  params.top_k = 100;
  params.top_p = 0.5f;
  params.min_p = 0.0f;
  const SamplerContext context{.n_vocab = 44, .max_tokens = 1, .piece = {}};
  Sampler whole(params, context), top(params, context);
  ASSERT_EQ(top.n_top(), 44);
  for (uint64_t at = 0; at < 200; ++at)
    ASSERT_EQ(top.sample_top(row.sorted, 0.0f, 40, at), whole.sample(row.logits, 0.0f, 40, at));
}

TEST(SamplerTop, AsksForAsManyAsTheFirstStagesNeed) {
  const auto n_top = [](auto change, int32_t n_vocab = 1000) {
    SamplingParams p;  // top-k 40 comes first
    change(p);
    return Sampler(p, {.n_vocab = n_vocab, .max_tokens = 10, .piece = {}}).n_top();
  };
  EXPECT_EQ(n_top([](auto&) {}), 40);
  EXPECT_EQ(n_top([](auto&) {}, 30), 30);
  EXPECT_EQ(n_top([](auto& p) { p.top_k = std::numeric_limits<int32_t>::max(); }), 1000);
  EXPECT_EQ(n_top([](auto& p) { p.temp = 0.0f; }), 0);
  EXPECT_EQ(n_top([](auto& p) { p.top_k = 0; }), -1);
  // Banned tokens may be among the best; other biases lift tokens from anywhere.
  EXPECT_EQ(n_top([](auto& p) { p.logit_bias = {{3, -kInf}, {5, -kInf}, {3, -kInf}}; }), 42);
  EXPECT_EQ(n_top([](auto& p) { p.logit_bias = {{3, -kInf}}, p.temp = 0.0f, p.top_k = 0; }), 2);
  EXPECT_EQ(n_top([](auto& p) { p.logit_bias = {{3, -kInf}, {5, -1.0f}}; }), -1);
  for (auto change : {+[](SamplingParams& p) { p.penalty_repeat = 1.1f; },
                      +[](SamplingParams& p) { p.dry_multiplier = 0.5f; },
                      +[](SamplingParams& p) { p.mirostat = 2; },
                      +[](SamplingParams& p) { p.top_n_sigma = 1.0f; },
                      +[](SamplingParams& p) {
                        p.order = {SamplerKind::kMinP, SamplerKind::kTopK};
                      }})
    EXPECT_EQ(n_top(change), -1);
  // Behind top-k they see no more than it leaves.
  EXPECT_EQ(n_top([](auto& p) {
              p.penalty_repeat = 1.1f;
              p.order = {SamplerKind::kTopK, SamplerKind::kPenalties};
            }),
            40);
}

}  // namespace
}  // namespace infer::text
