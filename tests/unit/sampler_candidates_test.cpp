#include "core/text/samplers/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/samplers/stage.h"

namespace infer::text {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// What is left, by id.
std::vector<std::pair<int32_t, float>> left(Candidates& candidates) {
  std::vector<std::pair<int32_t, float>> out;
  for (const Candidate& c : candidates.list()) out.emplace_back(c.id, c.logit);
  std::ranges::sort(out);
  return out;
}

TEST(TopSelect, EqualsSorting) {
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

/// A row with edits is the same as the list of what it stands for.
TEST(Candidates, RowWithEditsEqualsAList) {
  std::mt19937 rng(5);
  for (int round = 0; round < 1000; ++round) {
    std::vector<float> row(1 + rng() % 60);
    for (float& x : row) x = rng() % 9 == 0 ? -kInf : static_cast<float>(rng() % 12);
    const auto best = std::max_element(row.begin(), row.end());
    Candidates sparse, dense;
    sparse.reset(row, static_cast<int32_t>(best - row.begin()));
    dense.reset(row, static_cast<int32_t>(best - row.begin()));
    dense.list();
    for (int n = static_cast<int>(rng() % 4); n > 0; --n) {
      std::vector<int32_t> ids;
      std::vector<float> change;
      for (int32_t id = 0; id < static_cast<int32_t>(row.size()); ++id) {
        if (rng() % 4 != 0) continue;
        ids.push_back(id);
        change.push_back(rng() % 5 == 0 ? -kInf : static_cast<float>(rng() % 9) - 4.0f);
      }
      for (Candidates* c : {&sparse, &dense})
        c->edit(ids, [&](size_t i, float logit) { return logit + change[i]; });
    }
    ASSERT_EQ(sparse.empty(), dense.empty());
    if (dense.empty()) continue;
    ASSERT_EQ(sparse.best()->id, dense.best()->id);
    const size_t n = 1 + rng() % 12;
    const auto threshold = static_cast<double>(rng() % 12);
    for (Candidates* c : {&sparse, &dense}) {
      if (round % 4 == 0) c->keep_top(n);
      if (round % 4 == 1) c->keep_at_least(threshold, n);
      if (round % 4 == 2) c->keep_best();
    }
    ASSERT_EQ(left(sparse), left(dense)) << "round " << round;
  }
}

TEST(Candidates, ValuesBeyondFloatAreKeptInRange) {
  const std::vector<float> row{1.0f, 2.0f, -kInf};
  const std::vector<int32_t> ids{0, 1, 2};
  Candidates c;
  c.reset(row, 1);
  c.edit(ids, [](size_t, float) { return kInf; });
  EXPECT_EQ(left(c),
            (std::vector<std::pair<int32_t, float>>{{0, std::numeric_limits<float>::max()},
                                                    {1, std::numeric_limits<float>::max()}}));
}

std::vector<int32_t> ids_left(SamplerKind kind, const SamplingParams& p,
                              const std::vector<float>& row) {
  const auto best = std::max_element(row.begin(), row.end());
  Candidates candidates;
  candidates.reset(row, static_cast<int32_t>(best - row.begin()));
  const StageContext context{.n_vocab = static_cast<int32_t>(row.size()), .max_tokens = 1};
  if (const auto stage = make_stage(kind, p, context, 1)) stage->apply(candidates, {});
  std::vector<int32_t> ids;
  for (const auto& [id, logit] : left(candidates)) ids.push_back(id);
  return ids;
}

TEST(Stages, WorkedByHand) {
  using testing::ElementsAre;
  using enum SamplerKind;
  // Mean 2, standard deviation sqrt(2) over what is not -inf.
  const std::vector<float> spread{4.0f, 2.0f, -kInf, 2.0f, 0.0f};
  EXPECT_THAT(ids_left(kTopNSigma, {.top_n_sigma = 1.40f}, spread), ElementsAre(0));
  EXPECT_THAT(ids_left(kTopNSigma, {.top_n_sigma = 1.42f}, spread), ElementsAre(0, 1, 3));
  EXPECT_THAT(ids_left(kTopNSigma, {.top_n_sigma = 2.82f}, spread), ElementsAre(0, 1, 3));
  EXPECT_THAT(ids_left(kTopNSigma, {.top_n_sigma = 2.84f}, spread), ElementsAre(0, 1, 3, 4));
  // 1, 2, 3 and 3 bits, entropy 1.75 bits: the second is the most typical, then the first.
  const std::vector<float> bits{std::log(0.5f), std::log(0.25f), std::log(0.125f),
                                std::log(0.125f)};
  EXPECT_THAT(ids_left(kTypicalP, {.typical_p = 0.2f}, bits), ElementsAre(1));
  EXPECT_THAT(ids_left(kTypicalP, {.typical_p = 0.7f}, bits), ElementsAre(0, 1));
  EXPECT_THAT(ids_left(kTypicalP, {.typical_p = 0.8f}, bits), ElementsAre(0, 1, 2));
  EXPECT_THAT(ids_left(kTypicalP, {.min_keep = 2, .typical_p = 0.2f}, bits), ElementsAre(0, 1));
  SamplingParams xtc{.xtc_probability = 1.0f, .xtc_threshold = 0.2f};
  EXPECT_THAT(ids_left(kXtc, xtc, bits), ElementsAre(1, 2, 3));
  xtc.xtc_threshold = 0.12f;
  EXPECT_THAT(ids_left(kXtc, xtc, bits), ElementsAre(3));
  xtc.min_keep = 2;
  EXPECT_THAT(ids_left(kXtc, xtc, bits), ElementsAre(0, 1, 2, 3));
  xtc.xtc_threshold = 0.51f;
  EXPECT_THAT(ids_left(kXtc, xtc, bits), ElementsAre(0, 1, 2, 3));
}

/// Long lists are not sorted as a whole; what is left is the same.
TEST(Candidates, MassOfLongListsIsThatOfSortedOnes) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> row(Candidates::kShort + 1 + rng() % 1000);
    for (float& x : row) x = round % 2 == 0 ? normal(rng) : static_cast<float>(rng() % 30) * 0.5f;
    if (round % 5 == 0) row[7] = 60.0f;  // nearly all the mass
    if (round % 7 == 0) std::ranges::fill(row, 1.0f);
    const auto best = std::max_element(row.begin(), row.end());
    Candidates candidates;
    candidates.reset(row, static_cast<int32_t>(best - row.begin()));
    const Softmax softmax = softmax_of(candidates);
    const double mass = static_cast<double>(rng() % 1000) / 999.5;
    const size_t min_keep = rng() % 3 == 0 ? 1 + rng() % 400 : 1;
    std::optional<double> centre;
    if (rng() % 2 == 0) centre = softmax.log_norm - entropy_of(candidates, softmax);
    std::vector<Candidate> order(candidates.list().begin(), candidates.list().end());
    std::ranges::sort(order, [&](const Candidate& a, const Candidate& b) {
      const double da = centre ? std::abs(a.logit - *centre) : -static_cast<double>(a.logit);
      const double db = centre ? std::abs(b.logit - *centre) : -static_cast<double>(b.logit);
      return da != db ? da < db : better(a, b);
    });
    double sum = 0.0;
    std::vector<std::pair<int32_t, float>> want;
    for (const Candidate& c : order) {
      if (want.size() >= min_keep && sum >= mass) break;
      sum += std::exp(c.logit - softmax.log_norm);
      want.emplace_back(c.id, c.logit);
    }
    std::ranges::sort(want);
    candidates.keep_mass(softmax, mass, min_keep, centre);
    const std::span<const Candidate> list = candidates.list();
    EXPECT_TRUE(std::ranges::is_sorted(list, {}, &Candidate::id)) << "round " << round;
    ASSERT_EQ(left(candidates), want) << "round " << round;
    const Candidate top = *candidates.best();
    for (const Candidate& c : list) EXPECT_FALSE(better(c, top));
  }
}

/// Every stage leaves the same tokens whatever the order in the list.
TEST(Candidates, OrderInTheListDoesNotMatter) {
  const SamplingParams p{.temp = 0.7f,
                         .top_k = 9,
                         .top_p = 0.8f,
                         .min_p = 0.1f,
                         .typical_p = 0.6f,
                         .top_n_sigma = 1.2f,
                         .penalty_freq = 0.4f,
                         .dry_multiplier = 0.6f,
                         .xtc_probability = 1.0f,
                         .xtc_threshold = 0.05f,
                         .dynatemp_range = 0.4f};
  std::mt19937 rng(6);
  for (SamplerKind kind : p.order) {
    const auto stage = make_stage(kind, p, {.n_vocab = 50, .max_tokens = 100}, 1);
    ASSERT_NE(stage, nullptr) << name_of(kind);
    for (int32_t token : {1, 2, 3, 4, 9, 1, 2, 3}) stage->accept(token);
    for (int round = 0; round < 50; ++round) {
      std::vector<Candidate> list;
      for (int32_t id = 0; id < 50; ++id)
        list.push_back({.logit = static_cast<float>(rng() % 24) * 0.25f, .id = id});
      Candidates first, second;
      first.reset(list);
      stage->apply(first, {.seed = 1, .position = 2});
      std::shuffle(list.begin(), list.end(), rng);
      second.reset(list);
      stage->apply(second, {.seed = 1, .position = 2});
      ASSERT_EQ(left(first), left(second)) << name_of(kind);
    }
  }
}

}  // namespace
}  // namespace infer::text
