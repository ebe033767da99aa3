#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "core/engine.h"
#include "core/model/adapter.h"
#include "core/runtime/activation_tap.h"
#include "core/runtime/backend.h"
#include "core/runtime/placement.h"
#include "gguf/reader.h"
#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Engines over a CPU and devices that call themselves GPUs and compute as the CPU does: wherever
/// layers run, the bits of a run are the same.
namespace infer::test {
namespace {

using runtime::CompileOptions;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FakeGpu final : public runtime::Backend {
 public:
  explicit FakeGpu(std::string name) : name_(std::move(name)) {
    cpu_ = must(cpu::make_cpu_backend({.n_threads = 1, .isa = "generic", .pin = false}));
  }
  runtime::DeviceInfo describe() const override {
    return {.name = name_,
            .description = "a GPU for tests",
            .memory_bytes = free_bytes,
            .isa = "sm_00",
            .free_bytes = free_bytes,
            .is_gpu = true};
  }
  bool supports(const graph::Graph& g, const graph::Op& op,
                const CompileOptions& o) const override {
    const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs);
    if (only_plain && linear != nullptr &&
        (o.tap != nullptr ||
         std::ranges::any_of(linear->items, [](const auto& item) { return item.adapter >= 0; })))
      return false;
    return cpu_->supports(g, op, o) && (refused.empty() || op.name.find(refused) == op.name.npos);
  }
  Result<std::unique_ptr<runtime::Executable>> compile(const graph::Graph& g,
                                                       const graph::StagePlan& plan,
                                                       const CompileOptions& o) override {
    ++n_compile;
    const runtime::MemoryReport need = estimate(g, plan, o);
    last_bytes = need.weight_bytes + need.kv_bytes + need.arena_bytes;
    if (real_bytes > 0 && last_bytes > real_bytes)
      return make_error(ErrorCode::kOutOfMemory, "{}: out of memory", name_);
    return cpu_->compile(g, plan, o);
  }

  runtime::MemoryReport estimate(const graph::Graph& g, const graph::StagePlan& plan,
                                 const CompileOptions& o) const override {
    runtime::MemoryReport report = Backend::estimate(g, plan, o);
    report.arena_bytes += bytes_per_half * (plan.half_end - plan.half_begin);
    return report;
  }

  int64_t bytes_per_half = 0;  ///< of scratch, which add up: not the largest half's counts
  int64_t free_bytes = 0;      ///< as it says
  int64_t real_bytes = 0;      ///< 0: as much as one likes
  std::string refused;         ///< ops with this in their name
  bool only_plain = false;     ///< neither adapters nor taps
  int64_t last_bytes = 0;      ///< that a compiled stage needed
  int n_compile = 0;

 private:
  std::string name_;
  std::unique_ptr<runtime::Backend> cpu_;
};

/// A model of two layers, a CPU and GPUs.
class EnginePlace : public testing::Test {
 protected:
  EnginePlace() {
    cpu_ = must(cpu::make_cpu_backend({.n_threads = 1, .isa = "generic", .pin = false}));
    model_ = must(model_of(tiny_model("gemma3"), "tiny"));
    options_.n_ctx = 64;
    options_.n_batch = 16;
    options_.max_seqs = 2;
    options_.manual = true;
    options_.inform = [this](const std::string& line) { informed_.push_back(line); };
    options_.warn = [this](const std::string& line) { warned_.push_back(line); };
  }

  Result<std::unique_ptr<Engine>> create() {
    informed_.clear();
    warned_.clear();
    std::vector<runtime::Backend*> backends;
    for (FakeGpu& gpu : gpus_) backends.push_back(&gpu);
    if (has_cpu_) backends.push_back(cpu_.get());
    return Engine::create(model_, options_, backends);
  }
  /// "cpu[0,3) gpu:0[3,6)"
  static std::string shown(const Engine& engine) {
    std::string text;
    for (const StageInfo& s : engine.stages())
      text +=
          fmt::format("{}{}[{},{})", text.empty() ? "" : " ", s.device, s.half_begin, s.half_end);
    return text;
  }
  std::string placed() {
    const auto engine = create();
    return engine.ok() ? shown(**engine) : engine.error().message;
  }
  static Evaluation run(Engine& engine) {
    const std::vector<TokenId> prompt{3, 9, 27, 81, 5, 15};
    return evaluate(engine, prompt, 20);
  }

  std::unique_ptr<runtime::Backend> cpu_;
  bool has_cpu_ = true;
  std::vector<FakeGpu> gpus_;
  std::shared_ptr<const model::Model> model_;
  EngineOptions options_;
  std::vector<std::string> informed_, warned_;
};

TEST_F(EnginePlace, EveryPlacementGivesTheSameBits) {
  auto alone = must(create());
  EXPECT_EQ(shown(*alone), "cpu[0,6)");
  EXPECT_THAT(informed_, IsEmpty());
  EXPECT_THAT(alone->summary(), HasSubstr(" | cpu: "));
  const Evaluation want = run(*alone);
  gpus_.emplace_back("gpu:0");
  gpus_.emplace_back("gpu:1");
  const auto check = [&](int n, const std::string& stages) {
    options_.n_gpu_layers = n;
    auto engine = must(create());
    EXPECT_EQ(shown(*engine), stages);
    const Evaluation got = run(*engine);
    EXPECT_EQ(got.logits, want.logits);
    EXPECT_EQ(got.response.samples[0].ids, want.response.samples[0].ids);
  };
  check(0, "cpu[0,6)");
  check(1, "cpu[0,3) gpu:0[3,5) cpu[5,6)");
  check(2, "cpu[0,1) gpu:0[1,5) cpu[5,6)");
  check(3, "cpu[0,1) gpu:0[1,6)");
  check(kGpuLayersAll, "gpu:0[0,6)");
  check(kGpuLayersAuto, "gpu:0[0,6)");
  options_.tensor_split = {1, 1};
  check(2, "cpu[0,1) gpu:0[1,3) gpu:1[3,5) cpu[5,6)");
  check(kGpuLayersAll, "gpu:0[0,3) gpu:1[3,6)");
}

TEST_F(EnginePlace, TellsThePlanBeforeLoading) {
  gpus_.emplace_back("gpu:0");
  gpus_[0].free_bytes = int64_t{1} << 30;
  options_.n_gpu_layers = 1;
  int n_before = -1;
  options_.progress = [&](int64_t, int64_t) {
    if (n_before < 0) n_before = static_cast<int>(informed_.size());
  };
  const auto engine = must(create());
  EXPECT_EQ(n_before, 2);
  EXPECT_THAT(informed_,
              ElementsAre(testing::StartsWith("cpu: input, layer 0; output | MiB: weights "),
                          testing::AllOf(testing::StartsWith("gpu:0: layer 1 | MiB: weights "),
                                         testing::EndsWith(" of 1024.0 free"))));
  EXPECT_THAT(engine->summary(), HasSubstr(" | cpu (input, layer 0; output): "));
  EXPECT_THAT(engine->summary(), HasSubstr(" | gpu:0 (layer 1): a GPU for tests"));
}

TEST_F(EnginePlace, ProgressIsOneWholeOverAllStages) {
  gpus_.emplace_back("gpu:0");
  options_.n_gpu_layers = 1;
  int64_t last = 0, all = 0;
  options_.progress = [&](int64_t done, int64_t of) {
    EXPECT_GE(done, last);
    EXPECT_TRUE(all == 0 || all == of);
    last = done, all = of;
  };
  must(create());
  EXPECT_GT(all, 0);
  EXPECT_EQ(last, all);
}

TEST_F(EnginePlace, ARefusedOpStaysOnTheCpuAndIsNamedOnce) {
  gpus_.emplace_back("gpu:0");
  gpus_[0].refused = "blk.0.ffn";
  EXPECT_EQ(placed(), "cpu[0,3) gpu:0[3,6)");
  ASSERT_EQ(informed_.size(), 3u);
  EXPECT_EQ(informed_[0],
            "gpu:0: cannot compute op norm 'blk.0.ffn_norm' with weights of type f32: 1 of 2 "
            "layers on GPUs, the rest on the CPU");
  gpus_.emplace_back("gpu:1");
  gpus_[1].refused = "blk.0.ffn";
  EXPECT_EQ(placed(), "cpu[0,3) gpu:0[3,6)");
  ASSERT_EQ(informed_.size(), 3u);
  EXPECT_THAT(informed_[0], HasSubstr("gpu:0, gpu:1: cannot compute op norm 'blk.0.ffn_norm' "));
  // Nobody asked for that layer.
  options_.n_gpu_layers = 1;
  EXPECT_EQ(placed(), "cpu[0,3) gpu:0[3,5) cpu[5,6)");
  EXPECT_EQ(informed_.size(), 2u);
  options_.n_gpu_layers = kGpuLayersAuto;
  gpus_[0].refused = "ffn";
  EXPECT_EQ(placed(), "cpu[0,6)");
  ASSERT_EQ(informed_.size(), 1u);
  EXPECT_THAT(informed_[0], HasSubstr(": 0 of 2 layers on GPUs, the rest on the CPU"));
  has_cpu_ = false;
  EXPECT_THAT(placed(), HasSubstr("gpu:0: cannot compute op "));
}

/// What the GPU refuses is the adapter, or that somebody looks: not the types of the weights.
TEST_F(EnginePlace, TheReasonOfARefusalIsTheRightOne) {
  gpus_.emplace_back("gpu:0");
  gpus_[0].only_plain = true;
  const auto image = make_lora(tiny_model("gemma3"), {.rank = 2}).serialize();
  options_.adapters = {
      must(model::Adapter::load(must(gguf::Reader::parse(image, "adapter.gguf"))))};
  EXPECT_EQ(placed(), "cpu[0,6)");
  ASSERT_EQ(informed_.size(), 1u);
  EXPECT_THAT(informed_[0], HasSubstr("gpu:0: cannot compute op linear_group 'blk.0.attn_"));
  EXPECT_THAT(
      informed_[0],
      testing::EndsWith("' with a LoRA adapter: 0 of 2 layers on GPUs, the rest on the CPU"));
  options_.adapters.clear();
  runtime::ActivationTap tap;
  options_.tap = &tap;
  options_.stages = {{.backend = 0, .half_end = 6}};
  EXPECT_THAT(placed(), testing::EndsWith(" whose inputs are looked at"));
  options_.tap = nullptr;
  EXPECT_EQ(placed(), "gpu:0[0,6)");
}

/// The embedding of this model is its output matrix: on one device it is there once.
TEST_F(EnginePlace, ATiedEmbeddingIsCountedOnce) {
  gpus_.emplace_back("gpu:0");
  auto engine = must(create());
  ASSERT_EQ(shown(*engine), "gpu:0[0,6)");
  const int64_t needed = gpus_[0].last_bytes;
  gpus_[0].free_bytes = needed + needed / 15;
  while (runtime::memory_budget(gpus_[0].free_bytes) > needed) --gpus_[0].free_bytes;
  ASSERT_EQ(runtime::memory_budget(gpus_[0].free_bytes), needed);
  EXPECT_EQ(placed(), "gpu:0[0,6)");
  --gpus_[0].free_bytes;
  while (runtime::memory_budget(gpus_[0].free_bytes) == needed) --gpus_[0].free_bytes;
  EXPECT_EQ(placed(), "cpu[0,3) gpu:0[3,6)");
}

TEST_F(EnginePlace, OutOfMemoryMeansFewerLayersWithAuto) {
  gpus_.emplace_back("gpu:0");
  has_cpu_ = true;
  auto engine = must(create());
  const Evaluation want = run(*engine);
  engine.reset();
  std::vector<std::string> seen;
  for (gpus_[0].real_bytes = 400 << 10; gpus_[0].real_bytes > 1000; gpus_[0].real_bytes /= 2) {
    gpus_[0].n_compile = 0;
    engine = must(create());
    seen.push_back(shown(*engine));
    EXPECT_EQ(run(*engine).logits, want.logits);
    EXPECT_LE(warned_.size(), 1u);
    EXPECT_EQ(warned_.empty(), gpus_[0].n_compile <= 1);
    if (!warned_.empty()) {  // once, with what it came to, however often it was tried
      EXPECT_THAT(warned_[0],
                  testing::AllOf(HasSubstr("gpu:0: out of memory: "),
                                 testing::EndsWith(" of 2 layers on GPUs instead of 2")));
      const bool none = seen.back() == "cpu[0,6)";
      EXPECT_EQ(warned_[0].find(": 0 of 2 ") != std::string::npos, none) << warned_[0];
      EXPECT_EQ(informed_.size(), none ? 1u : seen.back().starts_with("cpu") ? 3u : 2u);
    }
  }
  EXPECT_EQ(seen.front(), "gpu:0[0,6)");
  EXPECT_EQ(seen.back(), "cpu[0,6)");
  EXPECT_THAT(seen, testing::Contains(HasSubstr("cpu[0,3) gpu:0[3,")));
  // What it says of itself is believed at once.
  gpus_[0].real_bytes = 0;
  gpus_[0].free_bytes = 1000;
  EXPECT_EQ(placed(), "cpu[0,6)");
  EXPECT_THAT(informed_, ElementsAre("gpu:0: 0.0 MiB free: too little for a layer, everything "
                                     "runs on the CPU"));
  EXPECT_THAT(warned_, IsEmpty());
}

/// Stages are measured as such: nothing is tried that is known not to fit.
TEST_F(EnginePlace, AStageMayTakeMoreThanItsHalvesSay) {
  gpus_.emplace_back("gpu:0");
  gpus_[0].bytes_per_half = 100 << 10;
  std::vector<std::string> seen;
  for (gpus_[0].free_bytes = 1200 << 10; gpus_[0].free_bytes > 10 << 10;
       gpus_[0].free_bytes -= 50 << 10) {
    gpus_[0].n_compile = 0;
    gpus_[0].real_bytes = runtime::memory_budget(gpus_[0].free_bytes);
    seen.push_back(placed());
    EXPECT_THAT(warned_, IsEmpty());
    EXPECT_LE(gpus_[0].n_compile, 1);
  }
  EXPECT_EQ(seen.front(), "gpu:0[0,6)");
  EXPECT_EQ(seen.back(), "cpu[0,6)");
  EXPECT_THAT(seen, testing::Contains("cpu[0,3) gpu:0[3,6)"));
}

TEST_F(EnginePlace, OutOfMemoryIsAnErrorWithANumberOfLayers) {
  gpus_.emplace_back("gpu:0");
  gpus_[0].real_bytes = 1000;
  for (const int n : {1, 2, kGpuLayersAll}) {
    options_.n_gpu_layers = n;
    const auto engine = create();
    ASSERT_FALSE(engine.ok());
    EXPECT_EQ(engine.error().code, ErrorCode::kOutOfMemory);
    EXPECT_THAT(engine.error().message, HasSubstr("gpu:0: out of memory: "));
    EXPECT_THAT(engine.error().message,
                testing::EndsWith(" layers on GPUs are too many; -ngl auto takes as many as fit"));
    EXPECT_EQ(gpus_[0].n_compile, 1);
    gpus_[0].n_compile = 0;
  }
}

TEST_F(EnginePlace, Bf16CacheNeedsAGpuThatHasIt) {
  options_.type_k = DType::kBF16;
  EXPECT_THAT(placed(), HasSubstr("cpu: cannot compute op"));
  EXPECT_THAT(placed(), HasSubstr("K/V of type bf16/f16"));
  gpus_.emplace_back("gpu:0");  // computes as the CPU does
  EXPECT_THAT(placed(), HasSubstr("K/V of type bf16/f16"));
}

TEST_F(EnginePlace, SharesForGpusThatThereAreNot) {
  options_.tensor_split = {1, 1};
  EXPECT_EQ(placed(), "cpu[0,6)");
  gpus_.emplace_back("gpu:0");
  EXPECT_THAT(placed(), HasSubstr("2 shares of layers for 1 GPUs"));
}

TEST_F(EnginePlace, InputsAreLookedAtOnTheCpu) {
  runtime::ActivationTap tap;
  options_.tap = &tap;
  gpus_.emplace_back("gpu:0");
  EXPECT_EQ(placed(), "cpu[0,6)");
  EXPECT_THAT(warned_, IsEmpty());
  options_.n_gpu_layers = 1;
  EXPECT_EQ(placed(), "cpu[0,6)");
  EXPECT_EQ(warned_.size(), 1u);
}

TEST_F(EnginePlace, ExplicitStagesAreTakenAsTheyAre) {
  gpus_.emplace_back("gpu:0");
  options_.stages = {{.backend = 1, .half_end = 2}, {.backend = 0, .half_end = 6}};
  EXPECT_EQ(placed(), "cpu[0,2) gpu:0[2,6)");
  EXPECT_THAT(informed_, IsEmpty());
  options_.stages = {{.backend = 2, .half_end = 6}};
  EXPECT_EQ(placed(), "stage 0: backend 2 of 2");
  options_.stages = {{.backend = 0, .half_end = 5}};
  EXPECT_EQ(placed(), "stages end at half-layer 5 of 6");
}

/// A session moves between engines that compute its layers elsewhere.
TEST_F(EnginePlace, SessionsGoWhereTheLayersAre) {
  gpus_.emplace_back("gpu:0");
  options_.n_gpu_layers = 1;
  auto first = must(create());
  Request r = make_request({3, 9, 27, 81, 5, 15, 2, 7}, 4, greedy());
  r.keep = KeepSession::kPrompt;
  const Response kept = run_request(*first, r);
  ASSERT_NE(kept.session, nullptr);
  options_.n_gpu_layers = 0;
  auto second = must(create());
  r.keep = KeepSession::kNone;
  r.session = kept.session;
  const Response again = run_request(*second, r);
  EXPECT_EQ(again.timings.cached_tok, 7);
  EXPECT_EQ(again.samples[0].ids, kept.samples[0].ids);
}

}  // namespace
}  // namespace infer::test
