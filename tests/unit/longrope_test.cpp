#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/model/model.h"
#include "tests/support/encode.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Rotary factors of long-context models against the published formula (transformers'
/// modeling_rope_utils, _compute_longrope_parameters), in f64:
///   inv_freq[i] = 1 / (factor[i] * base^(2i / dim)),  cos and sin times
///   sqrt(1 + ln(n_ctx_train / n_ctx_orig) / ln(n_ctx_orig)).
namespace infer::test {
namespace {

using testing::HasSubstr;

constexpr double kBase = 10000.0;
constexpr int64_t kCtxTrain = 128, kCtxOrig = 32;
const std::vector<float> kShort = {1.0f, 1.02f, 1.05f, 1.3f};
const std::vector<float> kLong = {1.08f, 1.7f, 9.5f, 31.25f};

void add_factors(GgufImage* image, const char* name, const std::vector<float>& x) {
  image->tensors.push_back(
      {name, DType::kF32, {static_cast<int64_t>(x.size())}, encode(DType::kF32, x)});
}

float attention_factor() {
  const double s = static_cast<double>(kCtxTrain) / kCtxOrig;
  return static_cast<float>(std::sqrt(1.0 + std::log(s) / std::log(double{kCtxOrig})));
}

/// The tiny Llama (heads of 8), without scaling but with both tensors, as converters write them.
GgufImage longrope_image() {
  GgufImage image = tiny_model("llama");
  image.erase("llama.rope.scaling.type");
  image.erase("llama.rope.scaling.factor");
  image.set("llama.rope.scaling.original_context_length", static_cast<uint32_t>(kCtxOrig));
  image.set("llama.rope.scaling.attn_factor", attention_factor());
  add_factors(&image, "rope_factors_long.weight", kLong);
  add_factors(&image, "rope_factors_short.weight", kShort);
  return image;
}

void expect_rope(const graph::Graph& g, const std::vector<float>& factors, double mscale) {
  ASSERT_EQ(g.ropes.size(), 1u);
  ASSERT_EQ(g.ropes[0].inv_freq.size(), factors.size());
  EXPECT_EQ(g.ropes[0].mscale, mscale);
  for (size_t i = 0; i < factors.size(); ++i) {
    const double want = 1.0 / (double{factors[i]} * std::pow(kBase, 2.0 * double(i) / 8.0));
    EXPECT_TRUE(std::fabs(g.ropes[0].inv_freq[i] - want) <= 1e-14 * want) << i;
  }
}

TEST(LongRope, FactorsFollowTheContext) {
  for (const bool named : {false, true}) {
    GgufImage image = longrope_image();
    if (named) image.set("llama.rope.scaling.type", std::string("longrope"));
    const auto model = must(model_of(image, "m"));
    for (const int64_t n_ctx : {int64_t{0}, int64_t{1}, kCtxOrig})
      expect_rope(must(model->build_graph({.n_ctx = n_ctx})), kShort, attention_factor());
    for (const int64_t n_ctx : {kCtxOrig + 1, kCtxTrain, int64_t{1} << 20})
      expect_rope(must(model->build_graph({.n_ctx = n_ctx})), kLong, attention_factor());
  }
}

TEST(LongRope, WithoutItsKeys) {
  GgufImage image = longrope_image();
  image.erase("llama.rope.scaling.original_context_length");  // then context_length
  image.erase("llama.rope.scaling.attn_factor");
  const auto model = must(model_of(image, "m"));
  expect_rope(must(model->build_graph({.n_ctx = kCtxTrain})), kShort, 1.0);
  expect_rope(must(model->build_graph({.n_ctx = kCtxTrain + 1})), kLong, 1.0);
}

/// What the engine computes with: equal factors are linear scaling, which has its own golden tests;
/// and of two engines of one model only the longer one takes the long factors.
TEST(LongRope, EngineChoosesByItsContext) {
  GgufImage image = longrope_image();
  image.erase("llama.rope.scaling.attn_factor");
  for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    const float factor = std::string(name).find("long") != std::string::npos ? 4.0f : 2.0f;
    image.find_tensor(name)->bytes = encode(DType::kF32, std::vector<float>(4, factor));
  }
  GgufImage linear = tiny_model("llama");
  const std::vector<TokenId> ids = {5, 9, 20, 7, 5, 31, 44, 8};
  const auto logits = [&](const GgufImage& of, int64_t n_ctx) {
    EngineOptions options = precise_options();
    options.n_ctx = n_ctx;
    const EngineBox engine = must(EngineBox::create(must(model_of(of, "m")), options, {"", 1}));
    return evaluate(*engine, ids, 0).logits;
  };
  linear.set("llama.rope.scaling.factor", 2.0f);
  const std::vector<float> two = logits(linear, kCtxTrain);
  linear.set("llama.rope.scaling.factor", 4.0f);
  const std::vector<float> four = logits(linear, kCtxTrain);
  EXPECT_NE(two, four);
  EXPECT_EQ(logits(image, kCtxOrig), two);
  EXPECT_EQ(logits(image, kCtxOrig + 1), four);
  EXPECT_EQ(logits(image, 0), four);  // the model's limit
}

void refused(const GgufImage& image, ErrorCode code, const char* what) {
  const auto model = model_of(image, "m.gguf");
  ASSERT_FALSE(model.ok()) << what;
  EXPECT_EQ(model.error().code, code) << what;
  EXPECT_THAT(model.error().message, HasSubstr(what));
  EXPECT_THAT(model.error().message, HasSubstr("m.gguf"));
}

TEST(LongRope, WrongFilesAreNamed) {
  for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    GgufImage image = longrope_image();
    image.find_tensor(name)->name = "rope_factors_medium.weight";
    refused(image, ErrorCode::kCorrupt, name);
    for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
      image = longrope_image();
      image.find_tensor(name)->bytes = encode(DType::kF32, std::vector{1.0f, 1.0f, bad, 1.0f});
      refused(image, ErrorCode::kCorrupt, name);
    }
    image = longrope_image();
    *image.find_tensor(name) = {
        name, DType::kF32, {3}, encode(DType::kF32, std::vector<float>(3, 1.0f))};
    refused(image, ErrorCode::kCorrupt, name);
  }
  GgufImage image = longrope_image();
  image.set("llama.rope.scaling.type", std::string("yarn"));
  refused(image, ErrorCode::kUnsupported, "rope.scaling.type");
  image = longrope_image();
  image.set("llama.rope.scaling.factor", 2.0f);
  refused(image, ErrorCode::kUnsupported, "rope.scaling.factor");
  image = longrope_image();
  add_factors(&image, "rope_freqs.weight", kShort);
  refused(image, ErrorCode::kUnsupported, "rope_freqs.weight");
  image = longrope_image();
  image.set("llama.rope.scaling.original_context_length", uint32_t{0});
  refused(image, ErrorCode::kCorrupt, "original_context_length");
  image = tiny_model("llama");
  image.set("llama.rope.scaling.type", std::string("longrope"));
  refused(image, ErrorCode::kUnsupported, "rope.scaling.type' = longrope");
  // An architecture that knows nothing of them.
  image = tiny_model("gemma3");
  add_factors(&image, "rope_factors_long.weight", kLong);
  add_factors(&image, "rope_factors_short.weight", kShort);
  refused(image, ErrorCode::kUnsupported, "rope_factors_long.weight");
}

}  // namespace
}  // namespace infer::test
