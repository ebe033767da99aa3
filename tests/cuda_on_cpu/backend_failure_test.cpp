#include <cstring>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cuda/layout.h"
#include "backends/cuda/upload.h"
#include "core/graph/planner.h"
#include "core/model/model.h"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/cuda_engine.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/support/tiny_model.h"

/// What machines and runs do that do not go well: devices that cannot be used, memory that is not
/// to be had, a device lost on the way. Only the emulator can be told to.
namespace infer::cuda::test {

/// A thread leaves while the others wait for it: the device does not recover from that.
__global__ void get_lost() {
  if (thread_idx().x != 0) sync_threads();
}

namespace {

using infer::test::must;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ModelPtr = std::shared_ptr<const model::Model>;

ModelPtr tiny(DType type = DType::kF32) {
  infer::test::TinyShape shape = kTiny;
  shape.type = type;
  return infer::test::mapped_model_of(infer::test::tiny_model("llama", shape), "tiny-failing");
}

int n_half(const ModelPtr& model) {
  return static_cast<int>(must(model->build_graph({})).halves.size());
}

EngineOptions on_first_device(const ModelPtr& model) {
  EngineOptions options = cuda_options();
  options.stages = {{.backend = 0, .half_end = n_half(model)}};
  return options;
}

/// The error of a request, which must be one line.
Error error_of(Engine& engine, Request request) {
  const RequestId id = must(engine.submit(std::move(request)));
  for (auto more = engine.run_step(); more.ok() && *more;) more = engine.run_step();
  const auto response = engine.wait(id);
  if (response.ok()) return {ErrorCode::kCancelled, "it worked"};
  EXPECT_EQ(response.error().message.find('\n'), std::string::npos);
  return response.error();
}

void lose_device() {
  ASSERT_EQ(launch(get_lost, 1, 32, 0, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(emulated::take_reports(), SizeIs(1));
}

TEST(OpeningDevices, LeavesOutWhatCannotBeUsed) {
  std::string why;
  emulated::reset({.architecture = 80, .code_architecture = 86});
  EXPECT_THAT(must(make_cuda_backends({}, &why)), IsEmpty());
  EXPECT_THAT(why, StartsWith("cuda:0 (CPU emulating sm_80, sm_80, 16.0 GiB): "));
  EXPECT_THAT(why, HasSubstr("this build has no code for it"));
  emulated::reset({.n_device = 2, .busy_device = 1});
  std::vector<std::string> left_out;
  const auto backends = must(make_cuda_backends({.devices = {}, .left_out = &left_out}, &why));
  ASSERT_THAT(backends, SizeIs(1));
  EXPECT_EQ(backends[0]->describe().name, "cuda:0");
  EXPECT_EQ(why, "");
  ASSERT_THAT(left_out, SizeIs(1));
  EXPECT_THAT(left_out[0], StartsWith("cuda:1 ("));
  EXPECT_THAT(left_out[0], HasSubstr("busy or unavailable (cudaErrorDevicesUnavailable)"));
  const auto named = make_cuda_backends({.devices = {0, 1}}, &why);
  ASSERT_FALSE(named.ok());
  EXPECT_EQ(named.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(named.error().message, left_out[0]);
  emulated::reset({.n_device = 1, .busy_device = 0});
  EXPECT_THAT(must(make_cuda_backends({}, &why)), IsEmpty());
  EXPECT_THAT(why, StartsWith("cuda:0 ("));
}

/// A newer device that runs older code: bf16 weights are rounded to f16 as that code does it.
TEST(OpeningDevices, FormsAreThoseOfTheCode) {
  const ModelPtr model = tiny(DType::kBF16);
  const auto logits = [&] {
    const CudaEngine engine = must(CudaEngine::create(model, on_first_device(model)));
    return infer::test::evaluate(*engine, prompt_of(80, 1), 1).logits;
  };
  emulated::reset({.architecture = 75});
  const auto want = logits();
  emulated::reset({.architecture = 80, .code_architecture = 75});
  EXPECT_EQ(logits(), want);
  std::string why;
  const runtime::DeviceInfo info = must(make_cuda_backends({}, &why))[0]->describe();
  EXPECT_EQ(info.isa, "sm_75");
  EXPECT_THAT(info.description, HasSubstr("sm_80"));
  emulated::reset({.architecture = 80});
  EXPECT_NE(logits(), want);
}

/// It is not the device that is full, and nothing was uploaded in vain.
TEST(TooLittle, PinnedMemory) {
  const ModelPtr model = tiny();
  const graph::Graph graph = must(model->build_graph({}));
  const graph::StagePlan plan =
      must(graph::plan_stage(graph, 0, n_half(model), {.n_tok = 64, .n_logit_rows = 64}));
  int n_copied = 0;
  runtime::CompileOptions options;
  options.n_ctx = 64;
  options.groups = {{.n_block = 5}};
  options.weight_copied = [&](graph::WeightId) { ++n_copied; };
  int n_refused = 0;
  for (size_t kib = 0; n_copied == 0; kib += 64) {
    emulated::reset({.pinned_bytes = kib << 10});
    std::string why;
    const auto backends = must(make_cuda_backends({}, &why));
    const auto exe = backends[0]->compile(graph, plan, options);
    if (exe.ok()) break;
    ++n_refused;
    EXPECT_EQ(exe.error().code, ErrorCode::kIo) << exe.error().message;
    EXPECT_THAT(exe.error().message, HasSubstr("the host refuses to pin"));
    EXPECT_EQ(n_copied, 0) << "at " << kib << " KiB";
    EXPECT_EQ(emulated::n_allocation(), 0u);
  }
  EXPECT_GT(n_refused, 2);
}

TEST(TooLittle, DevicesAreAskedBeforeTheCpuWorks) {
  const ModelPtr model = tiny();
  EngineOptions options = cuda_options();
  options.stages = {{.backend = 1, .half_end = 3}, {.backend = 0, .half_end = n_half(model)}};
  int n_progress = 0;
  options.progress = [&](int64_t, int64_t) { ++n_progress; };
  emulated::reset({.device_bytes = 64 << 10});
  EXPECT_FALSE(CudaEngine::create(model, options).ok());
  EXPECT_EQ(n_progress, 0);
}

/// The warning says what it came to in the end, however many times less was tried.
TEST(TooLittle, IsSaidOnceInTheEnd) {
  const ModelPtr model = tiny();
  EngineOptions options = cuda_options();
  options.n_gpu_layers = kGpuLayersAuto;
  std::vector<std::string> warned;
  options.warn = [&](const std::string& line) { warned.push_back(line); };
  emulated::reset({.device_bytes = 8 << 20, .hidden_bytes = (8 << 20) - (300 << 10)});
  const CudaEngine engine = must(CudaEngine::create(model, options));
  EXPECT_THAT(warned, ElementsAre(HasSubstr(": 0 of 2 layers on GPUs instead of 2")));
}

/// What is no allocation of the backend's is in its estimate: cuBLAS and captured steps.
TEST(TooLittle, LibrariesAreEstimated) {
  emulated::reset({});
  const auto extra = [](const ModelPtr& model, int64_t n_tok) {
    const graph::Graph graph = must(model->build_graph({}));
    const graph::StagePlan plan =
        must(graph::plan_stage(graph, 0, n_half(model), {.n_tok = n_tok, .n_logit_rows = 4}));
    runtime::CompileOptions options;
    options.n_ctx = 64;
    options.groups = {{.n_block = 5}};
    std::string why;
    const auto backends = must(make_cuda_backends({}, &why));
    const int64_t estimate = backends[0]->estimate(graph, plan, options).arena_bytes;
    return estimate - must(backends[0]->compile(graph, plan, options))->memory().arena_bytes;
  };
  const int64_t graphs = extra(tiny(), 80);
  EXPECT_GT(graphs, 0);
  EXPECT_EQ(extra(tiny(DType::kF16), 64), graphs) << "so few rows it does not multiply";
  EXPECT_GE(extra(tiny(DType::kF16), 80), graphs + (32 << 20));
}

/// A step's rows are a dimension of grids.
TEST(TooLarge, Batches) {
  emulated::reset({});
  const ModelPtr model = tiny();
  for (const bool automatic : {false, true}) {
    EngineOptions options = automatic ? cuda_options() : on_first_device(model);
    if (automatic) options.n_gpu_layers = kGpuLayersAuto;
    options.n_batch = 65536;
    const auto engine = CudaEngine::create(model, options);
    ASSERT_FALSE(engine.ok());
    EXPECT_EQ(engine.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(engine.error().message,
                HasSubstr("cuda:0: a batch of 65536 tokens is too large, at most 65535 (-b)"));
    EXPECT_EQ(emulated::n_allocation(), 0u);
  }
  const graph::Graph graph = must(model->build_graph({}));
  const graph::StagePlan plan =
      must(graph::plan_stage(graph, 0, n_half(model), {.n_tok = 65535, .n_logit_rows = 64}));
  runtime::CompileOptions options;
  options.n_ctx = 64;
  options.groups = {{.n_block = 5}};
  EXPECT_TRUE(StageLayout::plan(graph, plan, options, {}).ok());
}

TEST(CublasThatIsMissing, IsSaidOnceAndDoneWithout) {
  const ModelPtr model = tiny(DType::kF16);
  EngineOptions options = cuda_options();
  options.stages = {{.backend = 0, .half_end = 3}, {.backend = 1, .half_end = n_half(model)}};
  std::vector<std::string> informed;
  options.inform = [&](const std::string& line) { informed.push_back(line); };
  for (const bool has_cublas : {true, false}) {
    emulated::reset({.n_device = 2, .has_cublas = has_cublas});
    informed.clear();
    const CudaEngine engine = must(CudaEngine::create(model, options));
    EXPECT_EQ(infer::test::evaluate(*engine, prompt_of(80, 1), 1).response.samples.size(), 1u);
    if (has_cublas)
      EXPECT_THAT(informed, IsEmpty());
    else
      EXPECT_THAT(informed, ElementsAre(HasSubstr("libcublas was not found")));
  }
}

TEST(Uploading, ItsBuffersOutliveTheCopies) {
  emulated::reset({});
  const DeviceBuffer device = must(DeviceBuffer::allocate(4096, "a test"));
  {
    Upload upload = must(Upload::create(4096));
    std::byte* const staged = must(upload.begin());
    must(upload.copy(device.data(), staged, 4096));  // an error would end the upload here
  }
  EXPECT_THAT(emulated::take_reports(), IsEmpty());
}

/// Losing the device where sessions are kept or restored, and afterwards.
TEST(LosingTheDevice, IsOneErrorOfASession) {
  const ModelPtr model = tiny();
  const auto request = [&](KeepSession keep) {
    Request r = infer::test::make_request(prompt_of(5, 1), 3, infer::test::greedy());
    r.ignore_eos = true;
    r.keep = keep;
    return r;
  };
  const auto expect_lost = [](Engine& engine, const Request& failing) {
    const Error lost = error_of(engine, failing);
    EXPECT_EQ(lost.code, ErrorCode::kIo);
    const std::string& first = lost.message;
    EXPECT_THAT(first, HasSubstr("cuda:0: "));
    EXPECT_THAT(first, HasSubstr("cudaErrorLaunchFailure"));
    EXPECT_THAT(first, HasSubstr("tiny-failing"));
    EXPECT_THAT(first, Not(HasSubstr("failed before")));
    Request after = failing;
    after.on_event = {};
    after.on_logits = {};
    EXPECT_THAT(error_of(engine, after).message, HasSubstr("the device failed before: cuda:0: "));
  };
  const auto fresh = [&] {
    emulated::reset({});
    return must(CudaEngine::create(model, on_first_device(model)));
  };
  {
    const CudaEngine engine = fresh();
    Request all = request(KeepSession::kAll);
    int n_token = 0;
    StopReason reason = StopReason::kNone;
    all.on_event = [&](const infer::Event& e) {
      if (e.kind == infer::Event::Kind::kDone) reason = e.stop_reason;
      if (e.kind == infer::Event::Kind::kToken && ++n_token == 3) lose_device();
    };
    expect_lost(*engine, all);
    EXPECT_EQ(reason, StopReason::kError);
  }
  {
    const CudaEngine engine = fresh();
    Request prompt = request(KeepSession::kPrompt);
    int n_token = 0;
    prompt.on_event = [&](const infer::Event& e) {
      n_token += e.kind == infer::Event::Kind::kToken ? 1 : 0;
    };
    prompt.logits_from = 4;
    prompt.on_logits = [](const LogitsRow&) { lose_device(); };
    expect_lost(*engine, prompt);
    EXPECT_EQ(n_token, 0);
  }
  {
    const CudaEngine engine = fresh();
    const Response kept = infer::test::run_request(*engine, request(KeepSession::kAll));
    Request restored = request(KeepSession::kNone);
    restored.session = kept.session;
    const CudaEngine other = must(CudaEngine::create(model, on_first_device(model)));
    lose_device();
    expect_lost(*other, restored);
  }
}

/// At any time of a step that makes NaN, its repetition to find the op included.
TEST(LosingTheDevice, IsOneErrorWhereNanIsLookedFor) {
  auto image = infer::test::tiny_model("llama", kTiny);
  const float huge = 1e38f;
  auto& bytes = image.find_tensor("blk.1.ffn_up.weight")->bytes;
  for (size_t i = 0; i < 64; ++i) std::memcpy(bytes.data() + 4 * i, &huge, 4);
  const ModelPtr model = infer::test::mapped_model_of(image, "tiny-failing-nan");
  const Request request = infer::test::make_request(prompt_of(4, 1), 3, infer::test::greedy());
  int n_diagnosing = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    emulated::reset({.seed = seed});
    const CudaEngine engine = must(CudaEngine::create(model, on_first_device(model)));
    cudaStream_t aside = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(launch(get_lost, 1, 32, 0, aside), cudaSuccess);
    const Error first = error_of(*engine, request);
    if (first.code == ErrorCode::kNumeric) continue;  // it was not this kernel's turn
    EXPECT_EQ(first.code, ErrorCode::kIo);
    n_diagnosing += first.message.find("copying for a step") != std::string::npos ? 1 : 0;
    EXPECT_THAT(error_of(*engine, request).message, HasSubstr("the device failed before"));
  }
  EXPECT_GT(n_diagnosing, 0);
}

}  // namespace
}  // namespace infer::cuda::test
