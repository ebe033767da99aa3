#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/quant_types.h"
#include "core/graph/planner.h"
#include "core/model/model.h"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/cuda_engine.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/support/tiny_model.h"

/// Finding devices and loading models: what there is, what it takes, and one clear line where it
/// does not work. Only the emulator has the devices for that.
namespace infer::cuda::test {

/// A thread leaves while the others wait for it: the device does not recover from that.
__global__ void leave_early() {
  if (thread_idx().x != 0) sync_threads();
}

namespace {

using infer::test::must;
using ::testing::HasSubstr;

class Loading : public ::testing::Test {
 protected:
  void SetUp() override { emulated::reset({}); }
  static std::string why_none(const CudaBackendOptions& options = {}) {
    std::string why;
    EXPECT_TRUE(must(make_cuda_backends(options, &why)).empty());
    return why;
  }
  static std::string why_not(const infer::test::GgufImage& image, const EngineOptions& options,
                             ErrorCode code) {
    const auto engine =
        CudaEngine::create(must(infer::test::model_of(image, "tiny.gguf")), options);
    if (engine.ok()) return "it was loaded";
    EXPECT_EQ(engine.error().code, code) << engine.error().message;
    EXPECT_EQ(emulated::n_allocation(), 0u) << "left behind";
    return engine.error().message;
  }
  /// Everything on the first device, nothing said about layers.
  static EngineOptions all_on_device(const graph::Graph& graph) {
    EngineOptions options = cuda_options();
    options.stages = {{.backend = 0, .half_end = static_cast<int>(graph.halves.size())}};
    return options;
  }
  static EngineOptions all_on_device(const infer::test::GgufImage& image) {
    return all_on_device(must(must(infer::test::model_of(image, "tiny.gguf"))->build_graph({})));
  }
};

TEST_F(Loading, SaysWhyThereIsNoDevice) {
  emulated::reset({.has_driver = false});
  EXPECT_EQ(why_none(), "no NVIDIA driver");
  emulated::reset({.n_device = 0});  // also what CUDA_VISIBLE_DEVICES= looks like
  EXPECT_EQ(why_none(), "no CUDA device");
  emulated::reset({.architecture = 70});
  EXPECT_THAT(why_none(), HasSubstr("older than sm_75"));
}

TEST_F(Loading, OneBackendADevice) {
  emulated::reset({.architecture = 86, .n_device = 3});
  std::string why;
  auto backends = must(make_cuda_backends({}, &why));
  ASSERT_EQ(backends.size(), 3u);
  EXPECT_EQ(why, "");
  const runtime::DeviceInfo info = backends[2]->describe();
  EXPECT_EQ(info.name, "cuda:2");
  EXPECT_EQ(info.isa, "sm_86");
  EXPECT_TRUE(info.is_gpu);
  EXPECT_EQ(info.memory_bytes, int64_t{16} << 30);
  EXPECT_EQ(info.free_bytes, int64_t{16} << 30);
  backends = must(make_cuda_backends({.devices = {1}}, &why));
  ASSERT_EQ(backends.size(), 1u);
  EXPECT_EQ(backends[0]->describe().name, "cuda:1");
  const auto absent = make_cuda_backends({.devices = {0, 3}}, &why);
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(absent.error().message, "no device cuda:3: there are 3");
}

TEST_F(Loading, WhatItTakesIsWhatWasEstimated) {
  const auto model = infer::test::mapped_model_of(infer::test::tiny_model("llama", kTiny), "tiny");
  const graph::Graph graph = must(model->build_graph({}));
  const auto n_half = static_cast<int>(graph.halves.size());
  const graph::StagePlan plan =
      must(graph::plan_stage(graph, 0, n_half, {.n_tok = 16, .n_logit_rows = 4}));
  std::string why;
  const auto backends = must(make_cuda_backends({}, &why));
  std::vector<graph::WeightId> copied;
  int64_t done = 0;
  int64_t all = -1;
  runtime::CompileOptions options;
  options.n_ctx = 64;
  options.groups = {{.n_block = 5}};
  options.weight_copied = [&](graph::WeightId id) { copied.push_back(id); };
  options.progress = [&](int64_t bytes, int64_t of) {
    EXPECT_GE(bytes, done);
    done = bytes;
    all = of;
  };
  const runtime::MemoryReport estimate = backends[0]->estimate(graph, plan, options);
  const int64_t before = backends[0]->describe().free_bytes;
  const auto exe = must(backends[0]->compile(graph, plan, options));
  const int64_t taken = before - backends[0]->describe().free_bytes;
  const runtime::MemoryReport report = exe->memory();
  EXPECT_EQ(report.weight_bytes, estimate.weight_bytes);
  EXPECT_EQ(report.kv_bytes, estimate.kv_bytes);
  // Captured steps are extra.
  EXPECT_GT(estimate.arena_bytes, report.arena_bytes);
  EXPECT_EQ(taken, report.weight_bytes + report.kv_bytes + report.arena_bytes);
  // Two layers, blocks of 32 tokens, K and V of f16.
  EXPECT_EQ(report.kv_bytes, 2 * 5 * 32 * 2 * 64 * 2);
  EXPECT_EQ(done, all);
  // The output matrix is the embedding table, which is there once.
  EXPECT_EQ(copied.size(), graph.weights.size());
}

TEST_F(Loading, TooLittleMemoryIsOneLine) {
  const auto image = infer::test::tiny_model("llama", kTiny);
  const EngineOptions options = all_on_device(image);
  int n_refused = 0;
  for (size_t kib = 64; kib < 4096; kib += 256) {
    emulated::reset({.device_bytes = kib << 10});
    const auto engine =
        CudaEngine::create(must(infer::test::model_of(image, "tiny.gguf")), options);
    if (engine.ok()) break;
    ++n_refused;
    EXPECT_EQ(engine.error().code, ErrorCode::kOutOfMemory);
    EXPECT_THAT(engine.error().message, HasSubstr("no memory for"));
    EXPECT_THAT(engine.error().message, HasSubstr("MiB are needed"));
    EXPECT_EQ(engine.error().message.find('\n'), std::string::npos);
    EXPECT_EQ(emulated::n_allocation(), 0u);
  }
  EXPECT_GT(n_refused, 2);
}

TEST_F(Loading, RefusesByTheOpsName) {
  const auto image = infer::test::tiny_model("llama", kTiny);
  EngineOptions options = all_on_device(image);
  options.type_k = DType::kF32;
  EXPECT_THAT(why_not(image, options, ErrorCode::kUnsupported),
              HasSubstr("cuda:0: cannot compute op qk_norm_rope_store 'blk.0.attn_rope_store'"));
  options = all_on_device(image);
  options.unfused = true;
  options.stages[0].half_end = static_cast<int>(
      must(must(infer::test::model_of(image, "tiny.gguf"))->build_graph({.unfused = true}))
          .halves.size());
  EXPECT_THAT(why_not(image, options, ErrorCode::kUnsupported), HasSubstr("cannot compute op"));
  const auto odd_heads = infer::test::tiny_model("llama");
  EXPECT_THAT(why_not(odd_heads, all_on_device(odd_heads), ErrorCode::kUnsupported),
              HasSubstr("'blk.0.attn_rope_store'"));
}

/// As a user sees it, who asked for nothing but the model.
class Placing : public Loading {
 protected:
  std::string error_of(const infer::test::GgufImage& image) {
    lines_.clear();
    EngineOptions options = cuda_options();
    options.n_gpu_layers = kGpuLayersAuto;
    options.inform = [this](const std::string& line) { lines_.push_back(line); };
    options.warn = options.inform;
    const auto engine =
        CudaEngine::create(must(infer::test::model_of(image, "tiny.gguf")), options);
    return engine.ok() ? "" : engine.error().message;
  }
  std::vector<std::string> lines_;
};

TEST_F(Placing, ATypeThatNoKernelHasIsOneLine) {
  auto image = infer::test::tiny_model(
      "llama",
      {.n_embd = 256, .n_head = 4, .n_kv_head = 2, .head_dim = 64, .n_ff = 256, .sigma = 0.1f});
  EXPECT_EQ(error_of(image), "");
  auto* down = image.find_tensor("blk.1.ffn_down.weight");
  down->type = DType::kTQ1_0;
  down->bytes.resize(256 * static_cast<size_t>(quant_type(DType::kTQ1_0).block_bytes));
  EXPECT_EQ(error_of(image),
            "tiny.gguf: cpu: cannot compute op linear_group 'blk.1.ffn_down' with weights of type "
            "tq1_0");
  EXPECT_TRUE(lines_.empty()) << lines_[0];
}

TEST_F(Placing, WhatOnlyTheCpuComputesStaysThere) {
  EXPECT_EQ(error_of(infer::test::tiny_model("llama")), "");  // heads of 8
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0],
            "cuda:0: cannot compute op qk_norm_rope_store 'blk.0.attn_rope_store' with K/V of type "
            "f16/f16 and heads of 8: 0 of 2 layers on GPUs, the rest on the CPU");
}

TEST_F(Placing, LittleMemoryIsNoError) {
  std::vector<std::string> plans;
  for (const size_t kib : {4, 256, 512, 768, 1024, 2048, 65536}) {
    emulated::reset({.device_bytes = kib << 10});
    EXPECT_EQ(error_of(infer::test::tiny_model("llama", kTiny)), "") << kib << " KiB";
    plans.push_back(lines_.empty() ? "" : lines_.back());
    for (const std::string& line : lines_) EXPECT_EQ(line.find('\n'), std::string::npos);
  }
  EXPECT_EQ(plans.front(),
            "cuda:0: 0.0 MiB free: too little for a layer, everything runs on the CPU");
  EXPECT_THAT(plans.back(), HasSubstr("cuda:0: input, layers 0-1, output | MiB: "));
}

TEST_F(Loading, RefusesVectorsThatAreNotFinite) {
  auto image = infer::test::tiny_model("llama", kTiny);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(image.find_tensor("blk.1.ffn_norm.weight")->bytes.data() + 4 * 3, &nan, 4);
  EXPECT_THAT(why_not(image, all_on_device(image), ErrorCode::kCorrupt),
              HasSubstr("tensor 'blk.1.ffn_norm.weight'[3] = nan: not a finite number"));
}

/// After an error that the device does not recover from every step says so, in one line.
TEST_F(Loading, AFailedDeviceStaysFailed) {
  const auto image = infer::test::tiny_model("llama", kTiny);
  const CudaEngine engine = must(
      CudaEngine::create(must(infer::test::model_of(image, "tiny.gguf")), all_on_device(image)));
  const auto message = [&] {
    const RequestId id =
        must(engine->submit(infer::test::make_request(prompt_of(4, 1), 3, infer::test::greedy())));
    for (auto more = engine->run_step(); more.ok() && *more;) more = engine->run_step();
    const auto response = engine->wait(id);
    return response.ok() ? std::string("it worked") : response.error().message;
  };
  EXPECT_EQ(message(), "it worked");
  ASSERT_EQ(launch(leave_early, 1, 32, 0, nullptr), cudaSuccess);
  const std::string first = message();
  EXPECT_THAT(first, HasSubstr("cuda:0: "));
  EXPECT_THAT(first, HasSubstr("cudaErrorLaunchFailure"));
  EXPECT_EQ(first.find('\n'), std::string::npos);
  EXPECT_THAT(message(), HasSubstr("the device failed before: cuda:0: "));
  EXPECT_EQ(emulated::take_reports().size(), 1u);
}

}  // namespace
}  // namespace infer::cuda::test
