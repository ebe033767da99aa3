#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/half.h"
#include "tests/cuda_on_cpu/cuda_engine.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/golden/expected.h"
#include "tests/support/encode.h"
#include "tests/support/tiny_model.h"

/// Whole runs on the CUDA backend: replay against eager launches, batches, borders between stages,
/// sessions, NaN.
namespace infer::cuda::test {
namespace {

using infer::test::EngineBox;
using infer::test::must;
using ::testing::HasSubstr;
using ModelPtr = std::shared_ptr<const model::Model>;

ModelPtr tiny(const char* arch, DType type = DType::kF32) {
  infer::test::TinyShape shape = kTiny;
  shape.type = type;
  if (type != DType::kF32) {  // blocks of 256
    shape.n_embd = shape.n_ff = 256;
    shape.n_head = 4;
    shape.sigma = 0.05f;
  }
  return infer::test::mapped_model_of(infer::test::tiny_model(arch, shape),
                                      fmt::format("tiny-{}-{}", arch, static_cast<int>(type)));
}

struct Ran {
  std::vector<TokenId> ids;
  std::vector<TopLogprobs> logprobs;
  std::shared_ptr<const Session> session;
  int64_t cached = 0;
  bool operator==(const Ran& o) const {
    const auto same = [](const TopLogprobs& a, const TopLogprobs& b) {
      return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
        return x.id == y.id && x.logprob == y.logprob;
      });
    };
    return ids == o.ids && std::ranges::equal(logprobs, o.logprobs, same);
  }
};

Request request_of(std::vector<TokenId> prompt, int64_t max_tokens) {
  Request request = infer::test::make_request(std::move(prompt), max_tokens, infer::test::greedy());
  request.ignore_eos = true;
  request.n_logprobs = 4;
  return request;
}

/// Requests of these prompts, all at once.
std::vector<Ran> run(Engine& engine, const std::vector<std::vector<TokenId>>& prompts,
                     int64_t max_tokens, const std::function<void(Request&)>& change = {}) {
  std::vector<RequestId> ids;
  for (const auto& prompt : prompts) {
    Request request = request_of(prompt, max_tokens);
    if (change) change(request);
    ids.push_back(must(engine.submit(std::move(request))));
  }
  infer::test::run_to_end(engine);
  std::vector<Ran> runs;
  for (const RequestId id : ids) {
    const Response r = must(engine.wait(id));
    runs.push_back(
        {r.samples.at(0).ids, r.samples.at(0).logprobs, r.session, r.timings.cached_tok});
  }
  return runs;
}

class Running : public ::testing::Test {
 protected:
  void SetUp() override { emulated::reset({}); }
  void TearDown() override { EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{}); }
};

TEST_F(Running, ReplayIsEagerBitForBit) {
  EngineOptions options = cuda_options();
  options.max_seqs = 3;
  // The last one's attention is cut into two parts.
  const std::vector<std::vector<TokenId>> prompts = {prompt_of(5, 1), prompt_of(1, 2),
                                                     prompt_of(140, 3)};
  for (const char* arch : {"llama", "gemma3"}) {
    const CudaEngine replayed = must(CudaEngine::create(tiny(arch), options));
    const CudaEngine eager =
        must(CudaEngine::create(tiny(arch), options, {.devices = {}, .graphs = false}));
    EXPECT_EQ(run(*replayed, prompts, 10), run(*eager, prompts, 10)) << arch;
    EXPECT_GE(replayed.counters().n_replayed, 5);
    EXPECT_EQ(eager.counters().n_replayed, 0);
    // Of the prompts' rows and the generated ones only what was looked at came to the host.
    EXPECT_EQ(replayed.counters().n_whole_rows, 0);
    EXPECT_EQ(run(*replayed, prompts, 10), run(*eager, prompts, 10)) << arch << " again";
  }
}

/// More sequences than the largest captured step has rows, which is said.
TEST_F(Running, ManySequencesAreLaunchedOpByOp) {
  EngineOptions options = cuda_options();
  options.max_seqs = 66;
  options.n_ctx = 32;
  std::vector<std::string> said;
  options.inform = [&](const std::string& line) {
    if (line.find("op by op") != std::string::npos) said.push_back(line);
  };
  const CudaEngine engine = must(CudaEngine::create(tiny("llama"), options));
  EXPECT_TRUE(said.empty());
  std::vector<std::vector<TokenId>> prompts(66, prompt_of(2, 1));
  const std::vector<Ran> runs = run(*engine, prompts, 3);
  EXPECT_THAT(said, testing::ElementsAre(HasSubstr("cuda:0: steps of 66 sequences")));
  EXPECT_EQ(engine.counters().n_replayed, 0);
  EXPECT_EQ(runs.front().ids, runs.back().ids);
}

TEST_F(Running, LaunchesOfADecodedToken) {
  const auto launches = [](const ModelPtr& model) {
    const CudaEngine engine = must(CudaEngine::create(model, cuda_options()));
    run(*engine, {prompt_of(3, 1)}, 4);
    return engine.counters().kernels.at(1);
  };
  EXPECT_EQ(launches(tiny("llama")), 6 * 2 + 4);
  EXPECT_EQ(launches(tiny("gemma3")), 8 * 2 + 4);
  EXPECT_EQ(launches(tiny("llama", DType::kQ4_0)), 6 * 2 + 4);
}

/// Encodes a tensor of the tiny model again.
void set_type(infer::test::GgufImage* image, const std::string& name, DType type) {
  infer::test::GgufTensor& t = *image->find_tensor(name);
  std::vector<float> x(static_cast<size_t>(t.shape[0] * t.shape[1]));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.1f * std::sin(static_cast<float>(i * i % 1009));
  t.type = type;
  t.bytes = infer::test::encode(type, x);
}

TEST_F(Running, MixedTypesTakeMoreLaunches) {
  infer::test::TinyShape shape = kTiny;
  shape.type = DType::kQ4_0;
  auto image = infer::test::tiny_model("llama", shape);
  set_type(&image, "blk.0.attn_v.weight", DType::kQ8_0);
  set_type(&image, "blk.1.ffn_up.weight", DType::kQ8_0);
  const ModelPtr model = infer::test::mapped_model_of(image, "tiny-mixed");
  const CudaEngine engine = must(CudaEngine::create(model, cuda_options()));
  EngineOptions options = cuda_options();
  options.n_gpu_layers = 0;
  const CudaEngine cpu = must(CudaEngine::create(model, options));
  for (const int n_tok : {3, 12, 70})
    EXPECT_EQ(run(*engine, {prompt_of(n_tok, 1)}, 4).at(0).ids,
              run(*cpu, {prompt_of(n_tok, 1)}, 4).at(0).ids);
  // One more for each group of two types.
  EXPECT_EQ(engine.counters().kernels.at(1), 6 * 2 + 4 + 1 + 1);
}

TEST_F(Running, CacheOfBf16) {
  EngineOptions options = cuda_options();
  const std::vector<std::vector<TokenId>> prompts = {prompt_of(9, 1)};
  const auto want = run(*must(CudaEngine::create(tiny("llama"), options)), prompts, 4);
  options.type_k = options.type_v = DType::kBF16;
  EXPECT_EQ(run(*must(CudaEngine::create(tiny("llama"), options)), prompts, 4).at(0).ids,
            want.at(0).ids);
}

TEST_F(Running, SequencesOfABatchAreWhatEachIsAlone) {
  EngineOptions options = cuda_options();
  options.max_seqs = 4;
  const std::vector<std::vector<TokenId>> prompts = {prompt_of(7, 1), prompt_of(33, 2),
                                                     prompt_of(2, 3), prompt_of(64, 4)};
  const CudaEngine together = must(CudaEngine::create(tiny("gemma3"), options));
  const std::vector<Ran> all = run(*together, prompts, 8);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const CudaEngine alone = must(CudaEngine::create(tiny("gemma3"), options));
    EXPECT_EQ(run(*alone, {prompts[i]}, 8).at(0).ids, all[i].ids) << i;
  }
}

/// A prompt joins while others are decoded: rows of both sorts in one step.
TEST_F(Running, PromptsJoinWhoeverIsDecoding) {
  EngineOptions options = cuda_options();
  options.max_seqs = 3;
  const std::vector<std::vector<TokenId>> prompts = {prompt_of(50, 1), prompt_of(6, 2),
                                                     prompt_of(41, 3)};
  for (const char* arch : {"llama", "gemma3"}) {
    const CudaEngine engine = must(CudaEngine::create(tiny(arch), options));
    std::vector<RequestId> ids;
    for (const auto& prompt : prompts) {
      ids.push_back(must(engine->submit(request_of(prompt, 9))));
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(must(engine->run_step()));
    }
    infer::test::run_to_end(*engine);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const CudaEngine alone = must(CudaEngine::create(tiny(arch), options));
      EXPECT_EQ(must(engine->wait(ids[i])).samples.at(0).ids,
                run(*alone, {prompts[i]}, 9).at(0).ids)
          << arch << " " << i;
    }
  }
}

TEST_F(Running, ForksAreCopiedOnWrite) {
  EngineOptions options = cuda_options();
  options.max_seqs = 3;
  const CudaEngine engine = must(CudaEngine::create(tiny("llama"), options));
  Request request = request_of(prompt_of(37, 5), 8);
  request.n_samples = 3;
  const Response forked = infer::test::run_request(*engine, std::move(request));
  const Ran alone = run(*engine, {prompt_of(37, 5)}, 8).at(0);
  for (const Completion& sample : forked.samples) EXPECT_EQ(sample.ids, alone.ids);
}

/// Every type, few rows and many, against f32 activations and f32 K and V on the CPU, which where
/// it takes activations of 8 bits errs as well.
class Types : public ::testing::TestWithParam<std::tuple<DType, int>> {};

double spread(const std::vector<float>& logits) {
  double squares = 0.0;
  for (const float v : logits) squares += static_cast<double>(v) * v;
  return std::sqrt(squares / static_cast<double>(logits.size()));
}

TEST_P(Types, LogitsOfTheCpu) {
  const auto [type, architecture] = GetParam();
  emulated::reset({.architecture = architecture});
  const ModelPtr model = tiny("llama", type);
  EngineOptions options = cuda_options();
  const CudaEngine cuda = must(CudaEngine::create(model, options));
  options.n_gpu_layers = 0;
  const CudaEngine cpu = must(CudaEngine::create(model, options));
  const EngineBox precise = must(EngineBox::create(model, infer::test::precise_options()));
  for (const int n_tok : {6, 20, 80}) {
    const auto prompt = prompt_of(n_tok, n_tok);
    const auto want = infer::test::evaluate(*precise, prompt, 2);
    const auto fast = infer::test::evaluate(*cpu, prompt, 2);
    const auto got = infer::test::evaluate(*cuda, prompt, 2);
    const double size = spread(want.logits);
    const double cuda_error = infer::test::max_diff(got.logits, want.logits) / size;
    const double cpu_error = infer::test::max_diff(fast.logits, want.logits) / size;
    fmt::print("[ measured ] {} rows: max |dlogit| = {:.3g} std, the CPU's {:.3g}\n", n_tok,
               cuda_error, cpu_error);
    // bf16 activations have 8 bits as well, and K and V are f16.
    EXPECT_TRUE(cuda_error < 2.5e-2 + 1.5 * cpu_error) << n_tok << " rows: " << cuda_error;
  }
  EXPECT_EQ(cuda.counters().n_whole_rows, 6 + 20 + 80);
  options = cuda_options();
  options.precise = true;
  const CudaEngine exact = must(CudaEngine::create(model, options));
  for (const int n_tok : {6, 20}) {
    const auto prompt = prompt_of(n_tok, n_tok);
    const auto want = infer::test::evaluate(*precise, prompt, 2);
    const auto got = infer::test::evaluate(*exact, prompt, 2);
    EXPECT_TRUE(infer::test::max_diff(got.logits, want.logits) < 5e-3 * spread(want.logits));
  }
  EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(
    All, Types,
    ::testing::Values(std::tuple(DType::kF16, 80), std::tuple(DType::kBF16, 75),
                      std::tuple(DType::kBF16, 80), std::tuple(DType::kQ8_0, 80),
                      std::tuple(DType::kQ4_0, 75), std::tuple(DType::kQ4_K, 80),
                      std::tuple(DType::kQ6_K, 75)));

/// Rows of a model that is wider than its vocabulary: the plan puts the logits where the output
/// norm's input was, which the product still reads.
TEST_F(Running, TheInputOfAFoldedNormIsNotWrittenOver) {
  infer::test::TinyShape shape = kTiny;
  shape.n_embd = 512;
  shape.sigma = 0.04f;
  const auto model =
      infer::test::mapped_model_of(infer::test::tiny_model("llama", shape), "tiny-wide");
  const EngineBox cpu = must(EngineBox::create(model, infer::test::precise_options()));
  const CudaEngine cuda = must(CudaEngine::create(model, cuda_options()));
  const auto want = infer::test::evaluate(*cpu, prompt_of(4, 1), 1);
  const auto got = infer::test::evaluate(*cuda, prompt_of(4, 1), 1);
  EXPECT_TRUE(infer::test::max_diff(got.logits, want.logits) < 5e-3 * spread(want.logits));
}

TEST_F(Running, StagesGiveTheSameText) {
  if (emulated::on_gpu()) GTEST_SKIP() << "needs two devices";
  emulated::reset({.n_device = 2});
  const ModelPtr model = tiny("llama");
  const auto n_half = static_cast<int>(must(model->build_graph({})).halves.size());
  EngineOptions options = cuda_options();
  const std::vector<std::vector<TokenId>> prompts = {prompt_of(9, 1)};
  constexpr int kCpu = 2;
  const auto staged = [&](std::vector<StageSpec> stages, int64_t n_in, int64_t n_out) {
    options.stages = std::move(stages);
    const CudaEngine engine = must(CudaEngine::create(model, options));
    const Ran got = run(*engine, prompts, 6).at(0);
    const int64_t n_step = engine->stats().n_step;
    EXPECT_EQ(engine.counters().n_residual_in, n_in * n_step);
    EXPECT_EQ(engine.counters().n_residual_out, n_out * n_step);
    return got.ids;
  };
  const auto want = staged({{kCpu, n_half}}, 0, 0);
  EXPECT_EQ(staged({{0, n_half}}, 0, 0), want);
  // As --gpu-layers 1: the input and the first layer stay on the CPU.
  EXPECT_EQ(staged({{kCpu, 3}, {0, n_half}}, 1, 0), want);
  EXPECT_EQ(staged({{kCpu, 2}, {0, 4}, {kCpu, n_half}}, 1, 1), want);
  EXPECT_EQ(staged({{0, 2}, {1, n_half}}, 1, 1), want);
  EXPECT_EQ(staged({{0, 1}, {1, 3}, {0, n_half}}, 2, 2), want);
}

/// Rows of K as a session keeps them: the CPU's and the GPU's differ by roundings only.
TEST_F(Running, SessionsComeBackAsTheyWere) {
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ4_0}) {
    EngineOptions options = cuda_options();
    options.type_k = options.type_v = type;
    options.prefix_cache = false;
    const ModelPtr model = tiny("llama");
    const auto prompt = prompt_of(45, 2);
    const CudaEngine first = must(CudaEngine::create(model, options));
    const auto keep = [](Request& r) { r.keep = KeepSession::kAll; };
    const Ran kept = run(*first, {prompt}, 6, keep).at(0);
    ASSERT_NE(kept.session, nullptr);
    std::vector<TokenId> more = kept.session->tokens;
    more.insert(more.end(), {17, 99, 31});
    const auto with_session = [&](Request& r) {
      r.session = kept.session;
      r.keep = KeepSession::kPrompt;
    };
    const CudaEngine second = must(CudaEngine::create(model, options));
    const Ran got = run(*second, {more}, 6, with_session).at(0);
    EXPECT_EQ(got.cached, static_cast<int64_t>(kept.session->tokens.size()));
    for (size_t i = 0; i < kept.session->layers.size(); ++i) {
      const Session::Layer& was = kept.session->layers[i];
      const Session::Layer& is = got.session->layers[i];
      EXPECT_TRUE(std::equal(was.k.begin(), was.k.end(), is.k.begin()));
      EXPECT_TRUE(std::equal(was.v.begin(), was.v.end(), is.v.begin()));
    }
    // A session of the CPU has the same form: rows that differ by roundings, the same text.
    options.n_gpu_layers = 0;
    const CudaEngine cpu = must(CudaEngine::create(model, options));
    const Ran on_cpu = run(*cpu, {prompt}, 6, keep).at(0);
    const Session::Layer& a = kept.session->layers[0];
    const Session::Layer& b = on_cpu.session->layers[0];
    ASSERT_EQ(a.k.size(), b.k.size());
    int64_t n_equal = 0;
    for (size_t i = 0; i < a.k.size(); ++i) n_equal += a.k[i] == b.k[i] ? 1 : 0;
    EXPECT_GT(n_equal, static_cast<int64_t>(a.k.size()) * 3 / 4) << static_cast<int>(type);
    n_equal = 0;
    for (size_t i = 0; i < a.v.size(); ++i) n_equal += a.v[i] == b.v[i] ? 1 : 0;
    EXPECT_GT(n_equal, static_cast<int64_t>(a.v.size()) * 3 / 4) << static_cast<int>(type);
    EXPECT_EQ(run(*cpu, {more}, 6, with_session).at(0).ids, got.ids);
  }
}

TEST_F(Running, NamesTheOpThatMadeNan) {
  auto image = infer::test::tiny_model("llama", kTiny);
  const float huge = 1e38f;
  auto& bytes = image.find_tensor("blk.1.ffn_up.weight")->bytes;
  for (size_t i = 0; i < 64; ++i) std::memcpy(bytes.data() + 4 * i, &huge, 4);
  const auto model = infer::test::mapped_model_of(image, "tiny-nan");
  const CudaEngine engine = must(CudaEngine::create(model, cuda_options()));
  Request request = request_of(prompt_of(4, 1), 3);
  const RequestId id = must(engine->submit(std::move(request)));
  while (true) {
    const auto more = engine->run_step();
    if (!more.ok() || !*more) break;
  }
  const auto response = engine->wait(id);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().code, ErrorCode::kNumeric);
  EXPECT_THAT(response.error().message,
              HasSubstr("NaN or infinity in the output of layer 1, op linear_group"));
}

TEST_F(Running, SeedsGiveTheSameBits) {
  EngineOptions options = cuda_options();
  options.max_seqs = 2;
  std::vector<Ran> want;
  for (const uint64_t seed : {1, 2, 3, 4}) {
    emulated::reset({.seed = seed});
    const CudaEngine engine = must(CudaEngine::create(tiny("llama", DType::kQ4_0), options));
    const auto got = run(*engine, {prompt_of(12, 1), prompt_of(3, 2)}, 4);
    if (want.empty()) want = got;
    EXPECT_EQ(got, want) << seed;
  }
}

}  // namespace
}  // namespace infer::cuda::test
