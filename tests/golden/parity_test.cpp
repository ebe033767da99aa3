#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/golden/expected.h"
#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"

/// Tiny checkpoints with random weights against the logits that `transformers` computed for them in
/// float32.
namespace infer::test {
namespace {

constexpr std::array kCheckpoints{
    "llama",        "llama-tied-bpe", "llama3-rope", "llama-linear-rope",
    "llama-kquant", "llama-yarn",     "mistral-swa", "gemma3",
    "gemma2",       "qwen2",          "qwen3",       "phi3",
    "gpt2",         "gpt-neox",       "bloom-alibi", "mpt-alibi",
    "mixtral-moe",  "qwen2-moe",      "qwen3-moe"};

class Parity : public ::testing::TestWithParam<std::tuple<const char*, std::string>> {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    expected_ = expected_of(name());
    model_ = hf_model(name());
  }
  std::string name() const { return std::get<0>(GetParam()); }
  /// `plan` receives the engine's dump_plan().
  Evaluation run(const EngineOptions& options, std::string* plan = nullptr) const {
    const EngineBox engine =
        must(EngineBox::create(model_, options, {.isa = std::get<1>(GetParam()), .n_threads = 2}));
    if (plan != nullptr) *plan = engine->dump_plan();
    return evaluate(*engine, expected_.ids, static_cast<int64_t>(expected_.greedy.size()));
  }
  Expected expected_;
  std::shared_ptr<const model::Model> model_;
};

TEST_P(Parity, LogitsAndGreedyIdsOfTransformers) {
  const Evaluation got = run(precise_options());
  const double ratio = max_diff(got.logits, expected_.logits) / expected_.std_dev;
  fmt::print("[ measured ] {} {}: max |dlogit| = {:.3g} std\n", name(), std::get<1>(GetParam()),
             ratio);
  EXPECT_TRUE(ratio < 1e-3) << ratio;
  EXPECT_EQ(got.response.samples.at(0).ids, expected_.greedy);
}

TEST_P(Parity, UnfusedIsTheSame) {
  EngineOptions options = precise_options();
  std::string fused_plan;
  std::string unfused_plan;
  const Evaluation fused = run(options, &fused_plan);
  options.unfused = true;
  const Evaluation unfused = run(options, &unfused_plan);
  EXPECT_GT(std::count(unfused_plan.begin(), unfused_plan.end(), '\n'),
            std::count(fused_plan.begin(), fused_plan.end(), '\n'));
  const double ratio = max_diff(fused.logits, unfused.logits) / expected_.std_dev;
  fmt::print("[ measured ] {} {}: fused - unfused = {:.3g} std\n", name(), std::get<1>(GetParam()),
             ratio);
  EXPECT_TRUE(ratio < 1e-4) << ratio;
  EXPECT_TRUE(max_diff(unfused.logits, expected_.logits) < 1e-3 * expected_.std_dev);
  EXPECT_EQ(unfused.response.samples.at(0).ids, expected_.greedy);
}

TEST_P(Parity, ThreeStagesAreBitEqualToOne) {
  EngineOptions options = precise_options();
  std::string one_plan;
  std::string three_plan;
  const Evaluation one = run(options, &one_plan);
  const auto n_half = static_cast<int>(must(model_->build_graph({})).halves.size());
  // Borders inside a layer (after a mixer) and between layers.
  options.stages = {{.backend = 0, .half_end = 2},
                    {.backend = 0, .half_end = n_half / 2 + 1},
                    {.backend = 0, .half_end = n_half}};
  const Evaluation three = run(options, &three_plan);
  EXPECT_NE(one_plan, three_plan);
  ASSERT_EQ(one.logits.size(), three.logits.size());
  EXPECT_TRUE(std::equal(one.logits.begin(), one.logits.end(), three.logits.begin()));
  EXPECT_EQ(one.response.samples.at(0).ids, three.response.samples.at(0).ids);
}

INSTANTIATE_TEST_SUITE_P(Hf, Parity,
                         ::testing::Combine(::testing::ValuesIn(kCheckpoints),
                                            ::testing::ValuesIn(isa_levels())),
                         [](const auto& p) {
                           std::string label =
                               std::string(std::get<0>(p.param)) + "_" + std::get<1>(p.param);
                           std::replace(label.begin(), label.end(), '-', '_');
                           return label;
                         });

}  // namespace
}  // namespace infer::test
