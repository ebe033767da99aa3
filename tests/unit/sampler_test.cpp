#include "core/text/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/sampler_reference.h"

namespace infer::text {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Everything off.
SamplingParams nothing() {
  return {.temp = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = 11};
}

Sampler make_sampler(const SamplingParams& params, size_t n_vocab) {
  return {params, {.n_vocab = static_cast<int32_t>(n_vocab), .max_tokens = 1000, .piece = {}}};
}

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

/// With ties and tokens that cannot be drawn.
std::vector<float> test_logits() {
  std::vector<float> logits = random_logits(80, 3);
  logits[7] = logits[8];
  logits[20] = -kInf;
  logits[0] = -kInf;
  return logits;
}

/// Draws at 10,000 positions after the same past against the reference.
std::string misfit(const std::vector<float>& logits, const SamplingParams& params,
                   const reference::Past& past = {}) {
  const auto piece = [&](int32_t id) -> std::string_view {
    if (past.pieces.empty()) return "";
    return past.pieces[static_cast<size_t>(id)];
  };
  Sampler sampler(
      params, {.n_vocab = static_cast<int32_t>(logits.size()), .max_tokens = 1000, .piece = piece});
  sampler.accept(past.tokens);
  std::vector<int> counts(logits.size(), 0);
  for (uint64_t at = 0; at < 10000; ++at) ++counts[static_cast<size_t>(draw(sampler, logits, at))];
  return reference::compare(counts, reference::probabilities(logits, params, past));
}

SamplingParams with(void (*change)(SamplingParams&)) {
  SamplingParams p = nothing();
  change(p);
  return p;
}

/// A past of two sentences, the second of which repeats the first up to a point.
reference::Past test_past() {
  reference::Past past;
  for (int i = 0; i < 80; ++i) past.pieces.emplace_back(1, static_cast<char>('a' + i % 26));
  past.pieces[70] = ":";
  past.tokens = {70, 1, 2, 3, 4, 5, 6, 7, 8, 9, 70, 2, 3, 4, 33, 5, 2, 3, 4};
  return past;
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

TEST(Philox, UniformIsInRangeAndDependsOnAllArguments) {
  std::set<double> seen;
  double sum = 0.0;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    for (uint64_t at = 0; at < 1000; ++at) {
      const double u = uniform_at(seed, at << (at % 2 == 0 ? 0 : 33), at % 3 == 0 ? 1 : 0);
      ASSERT_TRUE(u >= 0.0 && u < 1.0);
      seen.insert(u);
      sum += u;
    }
  }
  EXPECT_EQ(seen.size(), 4000u);
  EXPECT_TRUE(std::abs(sum / 4000 - 0.5) <= 0.025);  // 5 standard errors
  EXPECT_NE(uniform_at(1, 2, 0), uniform_at(1, 2, 1));
}

TEST(Sampler, CuttingStagesGiveTheDefinedDistribution) {
  for (const SamplingParams& params :
       {nothing(), with([](auto& p) { p.temp = 0.6f; }), with([](auto& p) { p.temp = 1.7f; }),
        with([](auto& p) { p.top_k = 5; }), with([](auto& p) { p.top_k = 79; }),
        with([](auto& p) { p.top_p = 0.7f; }), with([](auto& p) { p.top_p = 0.99f; }),
        with([](auto& p) { p.min_p = 0.1f; }), with([](auto& p) { p.top_k = 40, p.top_p = 0.9f; }),
        with([](auto& p) { p.top_p = 0.95f, p.min_p = 0.05f, p.temp = 2.0f; }),
        with([](auto& p) { p.min_p = 0.9f, p.min_keep = 4; }),
        with([](auto& p) { p.top_p = 0.01f, p.min_keep = 3; }),
        with([](auto& p) { p.typical_p = 0.2f; }), with([](auto& p) { p.typical_p = 0.9f; }),
        with([](auto& p) { p.typical_p = 0.01f, p.min_keep = 5; }),
        with([](auto& p) { p.top_n_sigma = 1.0f; }), with([](auto& p) { p.top_n_sigma = 2.5f; }),
        with([](auto& p) { p.top_n_sigma = 1.5f, p.typical_p = 0.5f, p.temp = 1.3f; }),
        SamplingParams{.seed = 5}}) {
    SCOPED_TRACE(testing::Message()
                 << "temp " << params.temp << " top_k " << params.top_k << " top_p " << params.top_p
                 << " min_p " << params.min_p << " typical_p " << params.typical_p
                 << " top_n_sigma " << params.top_n_sigma);
    EXPECT_EQ(misfit(test_logits(), params), "");
  }
}

TEST(Sampler, XtcAndDynamicTemperatureGiveTheDefinedDistribution) {
  std::vector<float> logits = test_logits();
  for (size_t i = 30; i < 34; ++i) logits[i] = 6.0f + 0.1f * static_cast<float>(i);
  for (const SamplingParams& params :
       {with([](auto& p) { p.xtc_probability = 0.5f; }),
        with([](auto& p) { p.xtc_probability = 1.0f; }),
        with([](auto& p) { p.xtc_probability = 0.3f, p.xtc_threshold = 0.02f; }),
        with([](auto& p) { p.xtc_probability = 1.0f, p.xtc_threshold = 0.5f; }),
        with([](auto& p) { p.xtc_probability = 1.0f, p.xtc_threshold = 0.0f; }),
        with([](auto& p) { p.xtc_probability = 1.0f, p.top_k = 4, p.min_keep = 2; }),
        with([](auto& p) { p.dynatemp_range = 0.5f; }),
        with([](auto& p) { p.dynatemp_range = 2.0f, p.dynatemp_exponent = 0.5f; }),
        with([](auto& p) { p.temp = 0.7f, p.dynatemp_range = 0.7f, p.dynatemp_exponent = 2.0f; }),
        with([](auto& p) { p.top_k = 10, p.temp = 1.5f, p.dynatemp_range = 1.0f; })}) {
    SCOPED_TRACE(testing::Message()
                 << "xtc " << params.xtc_probability << " " << params.xtc_threshold << " dynatemp "
                 << params.temp << " " << params.dynatemp_range << " " << params.dynatemp_exponent);
    EXPECT_EQ(misfit(logits, params), "");
  }
}

TEST(Sampler, StagesWithHistoryGiveTheDefinedDistribution) {
  for (const SamplingParams& params :
       {with([](auto& p) { p.penalty_repeat = 1.5f; }),
        with([](auto& p) { p.penalty_repeat = 0.7f; }),
        with([](auto& p) { p.penalty_freq = 0.8f; }), with([](auto& p) { p.penalty_freq = -0.4f; }),
        with([](auto& p) { p.penalty_present = 1.5f; }),
        with([](auto& p) { p.penalty_repeat = 1.2f, p.penalty_freq = 0.3f, p.top_k = 9; }),
        with([](auto& p) { p.penalty_freq = 1.0f, p.penalty_last_n = 7; }),
        with([](auto& p) { p.penalty_freq = 1.0f, p.penalty_last_n = -1; }),
        with([](auto& p) { p.penalty_freq = 9.0f, p.penalty_last_n = 0; }),
        with([](auto& p) { p.dry_multiplier = 0.8f; }),
        with([](auto& p) { p.dry_multiplier = 2.0f, p.dry_allowed_length = 3, p.top_k = 12; }),
        with([](auto& p) { p.dry_multiplier = 1.0f, p.dry_allowed_length = 0; }), with([](auto& p) {
          p.dry_multiplier = 1.0f, p.dry_breakers = {"f", "c"};
        }),
        with([](auto& p) { p.dry_multiplier = 1.0f, p.dry_penalty_last_n = 9; }), with([](auto& p) {
          p.logit_bias = {{5, 3.0f}, {6, -2.0f}, {7, -kInf}, {5, 0.5f}};
        }),
        with([](auto& p) { p.mirostat = 2, p.mirostat_tau = 1.5f; }),
        with([](auto& p) { p.mirostat = 2, p.penalty_freq = 2.0f, p.top_k = 2, p.temp = 1.2f; }),
        SamplingParams{.seed = 4,
        .typical_p = 0.9f,
        .top_n_sigma = 2.0f,
        .penalty_repeat = 1.1f,
        .dry_multiplier = 0.8f,
        .xtc_probability = 0.5f,
        .xtc_threshold = 0.1f,
        .dynatemp_range = 0.3f}}) {
    SCOPED_TRACE(testing::Message()
                 << "repeat " << params.penalty_repeat << " freq " << params.penalty_freq
                 << " present " << params.penalty_present << " last " << params.penalty_last_n
                 << " dry " << params.dry_multiplier << " " << params.dry_allowed_length
                 << " mirostat " << params.mirostat);
    EXPECT_EQ(misfit(test_logits(), params, test_past()), "");
  }
}

TEST(Sampler, OrderIsAsAskedFor) {
  // Three tokens of p = 0.6, 0.3, 0.1: top-p 0.8 keeps two; at temperature 4 they are nearly equal,
  // and three are needed.
  const std::vector<float> logits{std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  SamplingParams p = nothing();
  p.temp = 4.0f;
  p.top_p = 0.8f;
  const auto drawn = [&](std::string_view order) {
    p.order = *parse_sampler_names(order);
    EXPECT_EQ(misfit(logits, p), "") << order;
    Sampler sampler = make_sampler(p, 3);
    std::set<int32_t> seen;
    for (uint64_t at = 0; at < 300; ++at) seen.insert(draw(sampler, logits, at));
    return seen.size();
  };
  EXPECT_EQ(drawn("top_p;temperature"), 2u);
  EXPECT_EQ(drawn("temperature;top_p"), 3u);
  EXPECT_EQ(drawn("temperature"), 3u);
  EXPECT_EQ(drawn("top_p"), 2u);
  EXPECT_EQ(drawn(""), 3u);
  p.top_k = 1;
  EXPECT_EQ(drawn("top_k;temperature"), 1u);
}

TEST(Sampler, EveryOrderOfAllStagesGivesTheDefinedDistribution) {
  SamplingParams p{.temp = 1.2f,
                   .top_k = 30,
                   .top_p = 0.9f,
                   .min_p = 0.02f,
                   .seed = 7,
                   .typical_p = 0.95f,
                   .top_n_sigma = 3.0f,
                   .penalty_repeat = 1.3f,
                   .penalty_freq = 0.2f,
                   .dry_multiplier = 0.7f,
                   .xtc_probability = 0.5f,
                   .xtc_threshold = 0.08f};
  std::mt19937 rng(1);
  for (int round = 0; round < 8; ++round) {
    std::string names;
    for (SamplerKind kind : p.order) names += std::string(name_of(kind)) + " ";
    EXPECT_EQ(misfit(test_logits(), p, test_past()), "") << names;
    std::shuffle(p.order.begin(), p.order.end(), rng);
  }
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  const std::vector<float> logits{1.0f, 3.0f, 3.0f, -2.0f};
  for (const SamplingParams& params :
       {SamplingParams{.temp = 0.0f}, SamplingParams{.temp = -1.0f}, SamplingParams{.top_k = 1},
        SamplingParams{.temp = 1.0f, .top_k = 0, .top_p = 0.0f},
        SamplingParams{.temp = 0.0f, .logit_bias = {{3, 1.0f}}}, SamplingParams{.temp = 1e-40f},
        SamplingParams{.temp = 0.0f, .dynatemp_range = 1.0f}}) {
    Sampler sampler = make_sampler(params, 4);
    for (uint64_t at = 0; at < 50; ++at) EXPECT_EQ(draw(sampler, logits, at), 1);
  }
}

TEST(Sampler, PenaltiesAndBiasesReachGreedyToo) {
  const std::vector<float> logits{1.0f, 3.0f, 2.5f, -2.0f};
  SamplingParams p{.temp = 0.0f};
  p.logit_bias = {{1, -kInf}};
  Sampler biased = make_sampler(p, 4);
  EXPECT_EQ(draw(biased, logits, 0), 2);
  p = {.temp = 0.0f, .penalty_present = 1.0f};
  Sampler penalised = make_sampler(p, 4);
  EXPECT_EQ(draw(penalised, logits, 0), 1);
  penalised.accept(1);
  EXPECT_EQ(draw(penalised, logits, 1), 2);
  penalised.accept(2);
  EXPECT_EQ(draw(penalised, logits, 2), 1);
}

TEST(Sampler, MinusInfinityIsNeverDrawn) {
  std::vector<float> logits(64, -kInf);
  logits[9] = -50.0f;
  logits[33] = -60.0f;
  std::set<int32_t> seen;
  SamplingParams p{.temp = 30.0f, .top_k = 40, .top_p = 1.0f, .min_p = 0.0f};
  Sampler sampler = make_sampler(p, 64);
  for (uint64_t at = 0; at < 500; ++at) seen.insert(draw(sampler, logits, at));
  EXPECT_THAT(seen, testing::ElementsAre(9, 33));
  std::fill(logits.begin(), logits.end(), -kInf);
  EXPECT_EQ(draw(sampler, logits, 0), 0);  // nothing is left: the argmax that came in
}

/// All stages at once, over rows where little is left.
TEST(Sampler, EdgesOfEveryStage) {
  SamplingParams p{.temp = 0.5f,
                   .top_k = 3,
                   .top_p = 0.5f,
                   .min_p = 0.5f,
                   .min_keep = 2,
                   .typical_p = 0.5f,
                   .top_n_sigma = 1.0f,
                   .penalty_repeat = 1e30f,
                   .penalty_freq = 1e38f,
                   .penalty_present = 3e38f,
                   .dry_multiplier = 3e38f,
                   .dry_base = 3e38f,
                   .dry_allowed_length = 0,
                   .xtc_probability = 1.0f,
                   .xtc_threshold = 0.0f,
                   .dynatemp_range = 0.5f};
  ASSERT_TRUE(validate(p).ok());
  std::mt19937 rng(3);
  for (int round = 0; round < 200; ++round) {
    p.mirostat = round % 4 == 3 ? 2 : 0;
    p.order = default_sampler_order();
    if (round > 100) std::shuffle(p.order.begin(), p.order.end(), rng);
    Sampler one = make_sampler(p, 1);
    one.accept(std::vector<int32_t>{0, 0, 0});
    EXPECT_EQ(draw(one, {-3.0f}, 0), 0);  // n_vocab 1: whatever the penalties say
    Sampler sampler = make_sampler(p, 5);
    sampler.accept(std::vector<int32_t>{4, 4, 0, 4, 4});
    EXPECT_EQ(draw(sampler, {-kInf, -kInf, -4.0f, -kInf, -kInf}, 0), 2);
    const int32_t of_two = draw(sampler, {1.0f, -kInf, -4.0f, -kInf, 3.0f}, 0);
    const int32_t of_equal = draw(sampler, std::vector<float>(5, 7.0f), 0);
    if (round > 100) continue;  // other orders may cut off what the penalties leave
    EXPECT_EQ(of_two, 2);
    EXPECT_TRUE(of_equal == 1 || of_equal == 2 || of_equal == 3) << of_equal;
  }
}

TEST(Sampler, DependsOnSeedPositionAndHistoryOnly) {
  SamplingParams p{.penalty_freq = 0.5f, .dry_multiplier = 0.5f, .xtc_probability = 0.4f};
  p.seed = 1;
  const std::vector<float> logits = random_logits(100, 5);
  Sampler a = make_sampler(p, 100), b = make_sampler(p, 100);
  p.seed = 2;
  Sampler other = make_sampler(p, 100);
  int n_differ = 0;
  for (uint64_t at = 0; at < 200; ++at) {
    const int32_t drawn = draw(a, logits, at);
    draw(b, random_logits(100, static_cast<uint32_t>(at)), at + 1000);  // thrown away
    EXPECT_EQ(draw(b, logits, at), drawn);
    EXPECT_EQ(draw(b, logits, at), drawn);
    n_differ += draw(other, logits, at) != drawn;
    for (Sampler* s : {&a, &b, &other}) s->accept(drawn);
  }
  EXPECT_GT(n_differ, 20);
}

}  // namespace
}  // namespace infer::text
