#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/text/sampler.h"
#include "tests/support/gguf_alloc_counter.h"

namespace infer::text {
namespace {

constexpr int32_t kVocab = 500;

/// Allocations of 300 tokens, the first of them included.
int64_t allocations_of(const SamplingParams& params) {
  std::mt19937 rng(1);
  std::vector<float> logits(kVocab);
  const auto piece = [](int32_t id) -> std::string_view { return id % 9 == 0 ? "a: \n" : "xyz"; };
  Sampler sampler(params, {.n_vocab = kVocab, .max_tokens = 400, .piece = piece});
  test::AllocCounter::reset();
  for (uint64_t at = 0; at < 300; ++at) {
    for (float& x : logits) x = static_cast<float>(rng() % 4096) / 512.0f;
    const auto best = std::max_element(logits.begin(), logits.end());
    sampler.accept(sampler.sample(logits, *best, static_cast<int32_t>(best - logits.begin()), at));
  }
  return test::AllocCounter::n_allocs();
}

TEST(SamplerAllocations, DrawingAllocatesNothing) {
  SamplingParams all{.temp = 1.2f,
                     .top_k = 30,
                     .top_p = 0.9f,
                     .min_p = 0.02f,
                     .typical_p = 0.95f,
                     .top_n_sigma = 3.0f,
                     .penalty_last_n = -1,
                     .penalty_freq = 0.2f,
                     .dry_multiplier = 0.7f,
                     .dry_allowed_length = 0,
                     .dry_penalty_last_n = 100,
                     .dry_breakers = {"y: zx", "\nx"},
                     .xtc_probability = 0.5f,
                     .dynatemp_range = 0.3f,
                     .logit_bias = {{3, 1.0f}, {400, -1.0f}}};
  EXPECT_EQ(allocations_of({}), 0);
  EXPECT_EQ(allocations_of({.penalty_repeat = 1.1f}), 0);
  EXPECT_EQ(allocations_of({.top_k = 300, .penalty_repeat = 1.1f, .dry_multiplier = 1.0f}), 0);
  EXPECT_EQ(allocations_of({.temp = 0.0f, .logit_bias = {{3, 1.0f}}}), 0);
  EXPECT_EQ(allocations_of({.top_k = 0, .top_p = 1.0f, .min_p = 0.0f}), 0);
  EXPECT_EQ(allocations_of(all), 0);
  std::mt19937 rng(4);
  for (int round = 0; round < 30; ++round) {
    std::shuffle(all.order.begin(), all.order.end(), rng);
    EXPECT_EQ(allocations_of(all), 0) << "order " << round;
  }
  all.mirostat = 2;
  EXPECT_EQ(allocations_of(all), 0);
  test::AllocCounter::reset();
  const std::vector<int> counted(1);
  EXPECT_EQ(test::AllocCounter::n_allocs(), 1);  // the counter does count
}

}  // namespace
}  // namespace infer::text
