#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda_on_cpu/cuda_engine.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/golden/expected.h"

/// Tiny checkpoints with random weights on the CUDA backend, executed by the emulator, against the
/// logits that `transformers` computed for them in float32.
namespace infer::cuda::test {
namespace {

using infer::test::Expected;
using infer::test::must;

constexpr double kTolerance = 2e-2;  // of the logits' standard deviation

class Goldens : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!infer::test::has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    emulated::reset({});
  }
};

int n_layer_of(const std::string& name) {
  const graph::Graph graph = must(infer::test::hf_model(name)->build_graph({}));
  return static_cast<int>(graph.cache_layers.size());
}

TEST_P(Goldens, LogitsAndGreedyIdsOfTransformers) {
  const Expected expected = infer::test::expected_of(GetParam());
  const CudaEngine engine =
      must(CudaEngine::create(infer::test::hf_model(GetParam()), cuda_options()));
  const auto got =
      infer::test::evaluate(*engine, expected.ids, static_cast<int64_t>(expected.greedy.size()));
  const double ratio = infer::test::max_diff(got.logits, expected.logits) / expected.std_dev;
  fmt::print("[ measured ] {}: max |dlogit| = {:.3g} std\n", GetParam(), ratio);
  EXPECT_TRUE(ratio < kTolerance) << ratio;
  EXPECT_EQ(got.response.samples.at(0).ids, expected.greedy);
  EXPECT_GT(engine.counters().n_replayed, 0) << "it did not run there";
  const std::string name = GetParam();
  const int n_layer = n_layer_of(name);
  const int launches = engine.counters().kernels.at(1);
  if (name.starts_with("llama") || name == "qwen3" || name == "mistral-swa") {
    EXPECT_LE(launches, 6 * n_layer + 4);
  } else if (name.starts_with("gemma")) {
    EXPECT_LE(launches, 8 * n_layer + 4);
  }
  EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(Hf, Goldens,
                         ::testing::Values("llama", "llama-tied-bpe", "llama3-rope",
                                           "llama-linear-rope", "llama-kquant", "llama-yarn",
                                           "mistral-swa", "gemma3", "gemma2", "qwen2", "qwen3",
                                           "phi3", "gpt2", "gpt-neox", "bloom-alibi", "mpt-alibi",
                                           "mixtral-moe", "qwen2-moe", "qwen3-moe"),
                         [](const auto& p) {
                           std::string label = p.param;
                           std::replace(label.begin(), label.end(), '-', '_');
                           return label;
                         });

}  // namespace
}  // namespace infer::cuda::test
