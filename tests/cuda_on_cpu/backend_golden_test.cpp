#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "backends/cuda/layout.h"
#include "core/base/quant_types.h"
#include "core/graph/planner.h"
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

/// What all but a quarter of the rows stay within, in standard deviations of the logits: rows near
/// a tie go to other experts when they are rounded otherwise. NaN counts as infinite.
double usual_error(const std::vector<float>& got, const std::vector<float>& want, int n_row) {
  const size_t n = want.size() / static_cast<size_t>(n_row);
  if (got.size() != want.size()) return INFINITY;
  double squares = 0.0;
  for (const float v : want) squares += static_cast<double>(v) * v;
  std::vector<double> errors;
  for (size_t at = 0; at < want.size(); at += n)
    errors.push_back(
        infer::test::max_diff(std::span(got).subspan(at, n), std::span(want).subspan(at, n)));
  std::sort(errors.begin(), errors.end());
  return errors[errors.size() * 3 / 4] / std::sqrt(squares / static_cast<double>(want.size()));
}

/// Mixtures of experts with so many rows of 2 choices each that an expert's meet its weights on
/// tensor cores, against f32 activations on the CPU, which where it takes activations of 8 bits
/// errs as well.
struct ManyRows {
  const char* name;
  DType type;
  int n_expert, n_tok;
  LinearPath path;
};
class Experts : public ::testing::TestWithParam<ManyRows> {};

TEST_P(Experts, LogitsOfTheCpu) {
  if (!infer::test::has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  emulated::reset({});
  const ManyRows& c = GetParam();
  EXPECT_EQ(expert_path(c.type, 2 * c.n_tok, c.n_expert, {.has_bf16 = true}), c.path);
  const auto model = infer::test::hf_model(c.name, c.type);
  EngineOptions options = cuda_options();
  const CudaEngine cuda = must(CudaEngine::create(model, options));
  options.n_gpu_layers = 0;
  const CudaEngine cpu = must(CudaEngine::create(model, options));
  options.precise = true;
  const CudaEngine precise = must(CudaEngine::create(model, options));
  const auto prompt = prompt_of(c.n_tok, c.n_tok);
  const auto want = infer::test::evaluate(*precise, prompt, 2).logits;
  const auto error_of = [&](Engine& engine) {
    return usual_error(infer::test::evaluate(engine, prompt, 2).logits, want, c.n_tok);
  };
  const double cuda_error = error_of(*cuda), cpu_error = error_of(*cpu);
  fmt::print("[ measured ] |dlogit| = {:.3g} std, the CPU's {:.3g}\n", cuda_error, cpu_error);
  EXPECT_TRUE(cuda_error < 2.5e-2 + 1.5 * cpu_error) << cuda_error;
  EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(
    Hf, Experts,
    ::testing::Values(ManyRows{"mixtral-moe", DType::kF16, 4, 28, LinearPath::kGemmHalf},
                      ManyRows{"mixtral-moe", DType::kQ8_0, 4, 30, LinearPath::kGemmQ8},
                      ManyRows{"mixtral-moe", DType::kQ4_0, 4, 140, LinearPath::kGemmHalf},
                      ManyRows{"qwen2-moe", DType::kBF16, 4, 24, LinearPath::kGemmHalf},
                      ManyRows{"qwen3-moe", DType::kBF16, 8, 70, LinearPath::kGemmHalf},
                      ManyRows{"mixtral-moe", DType::kQ8_0, 4, 16, LinearPath::kGemv}),
    [](const auto& p) {
      std::string label =
          fmt::format("{}_{}_{}", p.param.name, name_of(p.param.type), p.param.n_tok);
      std::replace(label.begin(), label.end(), '-', '_');
      return label;
    });

/// Rounded, a token's rows for its experts take as much as they have elements: an int8 each.
TEST(ExpertScratch, HoldsEachChoiceOnce) {
  if (!infer::test::has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  constexpr int64_t kRows = 64;
  const graph::Graph graph =
      must(infer::test::hf_model("mixtral-moe", DType::kQ8_0)->build_graph({}));
  const auto n_half = static_cast<int>(2 * graph.cache_layers.size());
  const graph::StagePlan plan =
      must(graph::plan_stage(graph, 0, n_half, {.n_tok = kRows, .n_logit_rows = 4}));
  int64_t most = 0;
  for (const graph::Op& op : graph.ops) {
    if (op.kind == graph::OpKind::kMoeDown || op.kind == graph::OpKind::kLinearGroup)
      most = std::max(most, graph.values[static_cast<size_t>(op.in[0])].n_cols);
  }
  runtime::CompileOptions options;
  options.n_ctx = kRows;
  options.groups = {{.n_block = 5}};
  const StageLayout layout = must(StageLayout::plan(graph, plan, options, {}));
  EXPECT_GE(layout.scratch.act_ds - layout.scratch.act_q, kRows * most);
  EXPECT_LT(layout.scratch.act_ds - layout.scratch.act_q, kRows * most + 1024);
}

/// Ids and best log-probabilities of sequences that are decoded together.
std::vector<std::string> decoded(const CudaEngine& engine, int n_seq) {
  std::vector<RequestId> requests;
  for (int i = 0; i < n_seq; ++i) {
    Request request = infer::test::make_request(prompt_of(2, i), 4, infer::test::greedy());
    request.ignore_eos = true;
    request.n_logprobs = 2;
    requests.push_back(must(engine->submit(std::move(request))));
  }
  infer::test::run_to_end(*engine);
  std::vector<std::string> texts;
  for (const RequestId id : requests) {
    const Response response = must(engine->wait(id));
    std::string text = fmt::format("{}", fmt::join(response.samples.at(0).ids, " "));
    for (const auto& best : response.samples.at(0).logprobs)
      for (const auto& top : best) text += fmt::format(" {}:{:a}", top.id, top.logprob);
    texts.push_back(text);
  }
  return texts;
}

// Steps of 18 rows in a bucket of 32, which is 16 rows an expert.
TEST(ExpertsDecoding, ReplayIsEagerBitForBit) {
  if (!infer::test::has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  emulated::reset({});
  EXPECT_EQ(expert_path(DType::kQ8_0, 2 * 32, 4, {}), LinearPath::kGemmQ8);
  const auto model = infer::test::hf_model("mixtral-moe", DType::kQ8_0);
  EngineOptions options = cuda_options();
  options.max_seqs = 18;
  const CudaEngine replayed = must(CudaEngine::create(model, options));
  const CudaEngine eager =
      must(CudaEngine::create(model, options, {.devices = {}, .graphs = false}));
  EXPECT_EQ(decoded(replayed, 18), decoded(eager, 18));
  EXPECT_GT(replayed.counters().n_replayed, 0);
  EXPECT_EQ(replayed.counters().kernels.count(32), 1U);
  EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{});
}

}  // namespace
}  // namespace infer::cuda::test
