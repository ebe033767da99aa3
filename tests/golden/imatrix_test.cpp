#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/eval/imatrix_collect.h"
#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// The activation tap: which rows meet which matrix, squared and summed.
namespace infer::test {
namespace {

using runtime::ActivationSums;
using runtime::ActivationTap;
using Sums = std::map<std::string, ActivationSums>;

constexpr int kTok = 40;

std::vector<TokenId> some_ids(const model::Model& model, int n = kTok) {
  std::vector<TokenId> ids;
  for (int i = 0; i < n; ++i)
    ids.push_back(static_cast<TokenId>((i * 37 + 5) % model.hparams().n_vocab));
  return ids;
}

struct Run {
  int n_threads = 2;
  int64_t n_batch = 512;
  bool unfused = false;
  bool output = false;
};

Sums collect(const std::shared_ptr<const model::Model>& model, const std::vector<TokenId>& ids,
             const Run& run = {}) {
  ActivationTap tap(eval::watched_tensors(run.output));
  EngineOptions options = precise_options();
  options.n_batch = run.n_batch;
  options.unfused = run.unfused;
  options.tap = &tap;
  const EngineBox engine =
      must(EngineBox::create(model, options, {.isa = "", .n_threads = run.n_threads}));
  Request request = make_request(ids, 0, greedy());
  if (run.output) request.on_logits = [](const LogitsRow&) {};
  run_request(*engine, std::move(request));
  return tap.sums();
}

/// Largest difference of two sums of a tensor, relative to the tensor's largest sum.
double difference(const ActivationSums& a, const ActivationSums& b) {
  if (a.sum_sq.size() != b.sum_sq.size() || a.n_row != b.n_row) return INFINITY;
  const double top = *std::max_element(b.sum_sq.begin(), b.sum_sq.end());
  double worst = 0.0;
  for (size_t i = 0; i < a.sum_sq.size(); ++i) {
    const double d = std::fabs(a.sum_sq[i] - b.sum_sq[i]) / top;
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

void expect_same_bytes(const Sums& a, const Sums& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [tensor, sums] : a) {
    const ActivationSums& other = b.at(tensor);
    EXPECT_EQ(sums.n_row, other.n_row) << tensor;
    ASSERT_EQ(sums.sum_sq.size(), other.sum_sq.size()) << tensor;
    EXPECT_EQ(
        std::memcmp(sums.sum_sq.data(), other.sum_sq.data(), sums.sum_sq.size() * sizeof(double)),
        0)
        << tensor;
  }
}

constexpr std::array kCheckpoints{"llama",     "gemma3",      "qwen3",    "phi3",
                                  "gpt2",      "bloom-alibi", "gpt-neox", "mixtral-moe",
                                  "qwen2-moe", "qwen3-moe"};

class Tap : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    model_ = hf_model(GetParam());
    ids_ = some_ids(*model_);
  }
  std::shared_ptr<const model::Model> model_;
  std::vector<TokenId> ids_;
};

/// Matrices of layers are in the file under names that end in ".weight"; vectors are norms, but for
/// the gate of a shared expert.
TEST_P(Tap, EveryMatrixOfTheLayersOnce) {
  const Sums sums = collect(model_, ids_);
  std::set<std::string> want;
  for (const gguf::TensorInfo& t : model_->file().tensors()) {
    const bool is_matrix = t.view.ne[1] > 1 || t.name.find("gate_inp") != t.name.npos;
    if (!t.name.starts_with("blk.") || !t.name.ends_with(".weight") || !is_matrix) continue;
    const std::string name(t.name);
    want.insert(name);
    ASSERT_TRUE(sums.contains(name)) << name;
    EXPECT_EQ(sums.at(name).n_k, t.view.ne[0]) << name;
    EXPECT_EQ(std::ssize(sums.at(name).n_row), t.view.ne[2]) << name;
    const std::vector<int64_t>& n_row = sums.at(name).n_row;
    int64_t n = 0;
    for (const int64_t one : n_row) n += one;
    EXPECT_EQ(n, n_row.size() == 1 ? kTok : kTok * model_->hparams().n_expert_used) << name;
  }
  EXPECT_EQ(sums.size(), want.size());
  for (const auto& [tensor, s] : sums) {
    EXPECT_TRUE(std::ranges::all_of(s.sum_sq, [](double x) { return x >= 0.0; })) << tensor;
    EXPECT_GT(*std::max_element(s.sum_sq.begin(), s.sum_sq.end()), 0.0) << tensor;
  }
}

TEST_P(Tap, UnfusedSeesTheSame) {
  const Sums fused = collect(model_, ids_);
  const Sums unfused = collect(model_, ids_, {.unfused = true});
  ASSERT_EQ(fused.size(), unfused.size());
  double worst = 0.0;
  for (const auto& [tensor, sums] : fused) {
    const double d = difference(sums, unfused.at(tensor));
    EXPECT_TRUE(d < 1e-4) << tensor << ": " << d;
    worst = std::max(worst, d);
  }
  fmt::print("[ measured ] {}: fused - unfused {:.2g} of the largest sum\n", GetParam(), worst);
}

TEST_P(Tap, ThreadsAndBatchesGiveTheSameBytes) {
  const Sums one = collect(model_, ids_, {.n_threads = 1});
  expect_same_bytes(one, collect(model_, ids_, {.n_threads = 3}));
  expect_same_bytes(one, collect(model_, ids_, {.n_threads = 2, .n_batch = 7}));
}

/// What meets the router meets so many experts; gate and up read the same rows, and so do q, k, v.
TEST_P(Tap, SharedInputsHaveEqualSums) {
  const Sums sums = collect(model_, ids_);
  int n_pair = 0;
  const auto expect_equal = [&](const std::string& a, const std::string& b) {
    if (!sums.contains(a) || !sums.contains(b)) return;
    EXPECT_EQ(sums.at(a).sum_sq, sums.at(b).sum_sq) << a << " and " << b;
    ++n_pair;
  };
  for (int il = 0; il < model_->hparams().n_layer; ++il) {
    const auto name = [&](const char* tensor) {
      return fmt::format("blk.{}.{}.weight", il, tensor);
    };
    expect_equal(name("attn_q"), name("attn_k"));
    expect_equal(name("attn_q"), name("attn_v"));
    expect_equal(name("ffn_gate"), name("ffn_up"));
    expect_equal(name("ffn_gate_exps"), name("ffn_up_exps"));
    if (!sums.contains(name("ffn_gate_exps"))) continue;
    const ActivationSums& router = sums.at(name("ffn_gate_inp"));
    const ActivationSums& experts = sums.at(name("ffn_gate_exps"));
    ActivationSums all{router.n_k, std::vector<double>(router.sum_sq.size()), router.n_row};
    for (size_t i = 0; i < experts.sum_sq.size(); ++i)
      all.sum_sq[i % all.sum_sq.size()] +=
          experts.sum_sq[i] / static_cast<double>(model_->hparams().n_expert_used);
    EXPECT_TRUE(difference(all, router) < 1e-12);
    EXPECT_EQ(sums.at(name("ffn_down_exps")).n_row, experts.n_row);
    ++n_pair;
  }
  const bool is_fused = sums.contains("blk.0.attn_qkv.weight");
  EXPECT_TRUE(n_pair > 0 || is_fused);
}

INSTANTIATE_TEST_SUITE_P(Hf, Tap, ::testing::ValuesIn(kCheckpoints), [](const auto& p) {
  std::string label = p.param;
  std::replace(label.begin(), label.end(), '-', '_');
  return label;
});

std::span<const float> floats_of(const model::Model& model, const char* tensor) {
  const gguf::TensorInfo* t = model.file().find_tensor(tensor);
  return {reinterpret_cast<const float*>(t->view.data), static_cast<size_t>(t->view.n_elem())};
}

/// The input of the first layer's q, k and v by hand: the embedding's row, RMS-normed, in f64.
TEST(TapByHand, FirstLayerOfLlama) {
  const auto model = must(model_of(tiny_model("llama"), "tiny"));
  const std::vector<TokenId> ids = some_ids(*model);
  const std::span<const float> table = floats_of(*model, "token_embd.weight");
  const std::span<const float> norm = floats_of(*model, "blk.0.attn_norm.weight");
  ActivationSums want{std::ssize(norm), std::vector<double>(norm.size()), {kTok}};
  for (const TokenId id : ids) {
    const auto x = table.subspan(static_cast<size_t>(id) * norm.size(), norm.size());
    double mean_sq = 0.0;
    for (const float v : x) mean_sq += static_cast<double>(v) * v;
    mean_sq /= static_cast<double>(norm.size());
    for (size_t i = 0; i < norm.size(); ++i) {
      const double y = x[i] / std::sqrt(mean_sq + 1e-5) * norm[i];
      want.sum_sq[i] += y * y;
    }
  }
  const Sums sums = collect(model, ids);
  for (const char* tensor : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const double d = difference(sums.at(tensor), want);
    EXPECT_TRUE(d < 1e-6) << tensor << ": " << d;
  }
}

/// The output matrix by request only, and then for every row.
TEST(TapByHand, OutputMatrix) {
  const auto model = must(model_of(tiny_model("llama"), "tiny"));
  const std::vector<TokenId> ids = some_ids(*model);
  const bool is_tied = model->file().find_tensor("output.weight") == nullptr;
  const std::string name = is_tied ? "token_embd.weight" : "output.weight";
  EXPECT_FALSE(collect(model, ids).contains(name));
  const Sums sums = collect(model, ids, {.output = true});
  ASSERT_TRUE(sums.contains(name));
  EXPECT_EQ(sums.at(name).n_row, std::vector<int64_t>{kTok});
}

class Collector : public ::testing::Test {
 protected:
  EngineBox engine(ActivationTap* tap, bool prefix_cache = false) const {
    EngineOptions options = precise_options();
    options.n_ctx = 64;
    options.tap = tap;
    options.prefix_cache = prefix_cache;
    options.manual = false;
    return must(EngineBox::create(model_, options, {.isa = "", .n_threads = 1}));
  }
  std::shared_ptr<const model::Model> model_ = must(model_of(tiny_model("llama"), "tiny"));
  std::string text_ = [] {
    std::string text;
    for (int i = 0; i < 60; ++i) text += fmt::format("the {} ", i);
    return text;
  }();
};

TEST_F(Collector, ChunksBeginWithBosAndAreAlone) {
  ActivationTap tap(eval::watched_tensors(false));
  const EngineBox box = engine(&tap);
  std::vector<int64_t> seen;
  eval::CollectOptions options{.chunk_tok = 48, .max_chunks = 3};
  options.on_chunk = [&](int64_t done, int64_t all) -> Result<void> {
    EXPECT_EQ(all, 3);
    seen.push_back(done);
    EXPECT_EQ(tap.sums().begin()->second.n_row[0], done * 48);
    return {};
  };
  EXPECT_EQ(must(eval::collect_imatrix(*box, text_, options)), 3);
  EXPECT_EQ(seen, (std::vector<int64_t>{1, 2, 3}));

  ActivationTap by_hand(eval::watched_tensors(false));
  const EngineBox other = engine(&by_hand);
  const std::vector<TokenId> ids = must(model_->tokenizer().encode(text_));
  const text::SpecialIds& special = model_->tokenizer().special();
  ASSERT_TRUE(special.add_bos);
  for (int chunk = 0; chunk < 3; ++chunk) {
    std::vector<TokenId> part(ids.begin() + chunk * 48, ids.begin() + (chunk + 1) * 48);
    part[0] = special.bos;
    must(other->generate(make_request(part, 0, greedy())));
  }
  expect_same_bytes(tap.sums(), by_hand.sums());
}

TEST_F(Collector, ErrorsNameNumbers) {
  ActivationTap tap;
  const EngineBox box = engine(&tap);
  const auto error = [&](Engine& e, const std::string& text, const eval::CollectOptions& options) {
    const auto n = eval::collect_imatrix(e, text, options);
    return n.ok() ? Error{ErrorCode::kIo, "done"} : n.error();
  };
  EXPECT_EQ(error(*box, "the", {.chunk_tok = 48}).code, ErrorCode::kInvalidArgument);
  EXPECT_NE(error(*box, "the", {.chunk_tok = 48}).message.find("less than one chunk of 48"),
            std::string::npos);
  EXPECT_NE(error(*box, text_, {.chunk_tok = 65}).message.find("1 to 64"), std::string::npos);
  EXPECT_EQ(error(*box, text_, {.chunk_tok = 0}).code, ErrorCode::kInvalidArgument);
  const EngineBox cached = engine(&tap, /*prefix_cache=*/true);
  std::string same;
  for (int i = 0; i < 300; ++i) same += "e";
  EXPECT_NE(error(*cached, same, {.chunk_tok = 48}).message.find("prefix cache"),
            std::string::npos);
}

TEST_F(Collector, StopsBetweenAndWithinChunks) {
  ActivationTap tap;
  const EngineBox box = engine(&tap);
  std::stop_source stop;
  eval::CollectOptions options{.chunk_tok = 48, .stop = stop.get_token()};
  options.on_chunk = [&](int64_t, int64_t) -> Result<void> {
    stop.request_stop();
    return {};
  };
  const auto n = eval::collect_imatrix(*box, text_, options);
  ASSERT_FALSE(n.ok());
  EXPECT_EQ(n.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(tap.sums().begin()->second.n_row[0], 48);
  options.on_chunk = [](int64_t, int64_t) -> Result<void> { return Error{ErrorCode::kIo, "disk"}; };
  options.stop = {};
  EXPECT_EQ(eval::collect_imatrix(*box, text_, options).error().message, "disk");
}

TEST(TapSmolLm2, AllMatricesOfThirtyLayers) {
  const auto path = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  const auto model = model_of(path);
  const Sums sums = collect(model, some_ids(*model, 64));
  EXPECT_EQ(sums.size(), 30u * 7u);
  for (const auto& [tensor, s] : sums) {
    EXPECT_EQ(s.n_row, std::vector<int64_t>{64}) << tensor;
    EXPECT_TRUE(std::ranges::all_of(s.sum_sq, [](double x) { return x > 0.0 && x < 1e12; }))
        << tensor;
  }
}

}  // namespace
}  // namespace infer::test
