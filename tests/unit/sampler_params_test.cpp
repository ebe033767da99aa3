#include "core/text/sampler_params.h"

#include <cmath>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infer::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();

std::string message(const SamplingParams& p) {
  const Result<void> r = validate(p, 100);
  return r.ok() ? std::string() : r.error().message;
}

TEST(SamplerParams, OutOfRangeIsNamed) {
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({.temp = -1.0f, .top_k = -1, .top_p = 2.0f, .min_p = -1.0f}), "");
  EXPECT_THAT(message({.temp = kInf}), HasSubstr("temp"));
  EXPECT_THAT(message({.top_p = -0.1f}), HasSubstr("top_p = -0.1"));
  EXPECT_THAT(message({.min_p = 1.5f}), HasSubstr("min_p = 1.5"));
  EXPECT_THAT(message({.min_keep = -1}), HasSubstr("min_keep"));
  EXPECT_THAT(message({.typical_p = -1.0f}), HasSubstr("typical_p"));
  EXPECT_THAT(message({.penalty_last_n = -2}), HasSubstr("penalty_last_n = -2"));
  EXPECT_EQ(message({.penalty_last_n = -1}), "");
  EXPECT_THAT(message({.penalty_repeat = 0.0f}), HasSubstr("penalty_repeat = 0"));
  EXPECT_THAT(message({.penalty_freq = -kInf}), HasSubstr("penalty_freq"));
  EXPECT_THAT(message({.dry_multiplier = -1.0f}), HasSubstr("dry_multiplier = -1"));
  EXPECT_THAT(message({.dry_base = 0.5f}), HasSubstr("dry_base = 0.5"));
  EXPECT_THAT(message({.dry_allowed_length = -1}), HasSubstr("dry_allowed_length"));
  EXPECT_THAT(message({.dry_penalty_last_n = -2}), HasSubstr("dry_penalty_last_n"));
  EXPECT_THAT(message({.dry_breakers = {"a", ""}}), HasSubstr("dry_breakers[1]"));
  EXPECT_THAT(message({.dry_breakers = {std::string(2000, 'a')}}), HasSubstr("2000 bytes"));
  EXPECT_THAT(message({.xtc_probability = 1.1f}), HasSubstr("xtc_probability = 1.1"));
  EXPECT_THAT(message({.xtc_threshold = -0.1f}), HasSubstr("xtc_threshold"));
  EXPECT_THAT(message({.dynatemp_range = -1.0f}), HasSubstr("dynatemp_range"));
  EXPECT_THAT(message({.dynatemp_exponent = kInf}), HasSubstr("dynatemp_exponent"));
  EXPECT_THAT(message({.mirostat = 1}), HasSubstr("mirostat = 1"));
  EXPECT_THAT(message({.mirostat_tau = -1.0f}), HasSubstr("mirostat_tau"));
  EXPECT_THAT(message({.logit_bias = {{-1, 0.0f}}}), HasSubstr("token -1"));
  EXPECT_THAT(message({.logit_bias = {{99, 0.0f}, {100, 0.0f}}}),
              HasSubstr("logit_bias[1]: token 100 is not in a vocabulary of 100"));
  EXPECT_THAT(message({.logit_bias = {{1, kInf}}}), HasSubstr("logit_bias[0]"));
  EXPECT_EQ(message({.logit_bias = {{1, -kInf}}}), "");
}

TEST(SamplerParams, NanIsRefusedEverywhere) {
  const float nan = std::nanf("");
  EXPECT_THAT(message({.temp = nan}), HasSubstr("temp = nan"));
  EXPECT_THAT(message({.top_p = nan}), HasSubstr("top_p"));
  EXPECT_THAT(message({.min_p = nan}), HasSubstr("min_p"));
  EXPECT_THAT(message({.typical_p = nan}), HasSubstr("typical_p"));
  EXPECT_THAT(message({.top_n_sigma = nan}), HasSubstr("top_n_sigma"));
  EXPECT_THAT(message({.penalty_repeat = nan}), HasSubstr("penalty_repeat"));
  EXPECT_THAT(message({.penalty_freq = nan}), HasSubstr("penalty_freq"));
  EXPECT_THAT(message({.penalty_present = nan}), HasSubstr("penalty_present"));
  EXPECT_THAT(message({.dry_multiplier = nan}), HasSubstr("dry_multiplier"));
  EXPECT_THAT(message({.dry_base = nan}), HasSubstr("dry_base"));
  EXPECT_THAT(message({.xtc_probability = nan}), HasSubstr("xtc_probability"));
  EXPECT_THAT(message({.xtc_threshold = nan}), HasSubstr("xtc_threshold"));
  EXPECT_THAT(message({.dynatemp_range = nan}), HasSubstr("dynatemp_range"));
  EXPECT_THAT(message({.dynatemp_exponent = nan}), HasSubstr("dynatemp_exponent"));
  EXPECT_THAT(message({.mirostat_tau = nan}), HasSubstr("mirostat_tau"));
  EXPECT_THAT(message({.mirostat_eta = nan}), HasSubstr("mirostat_eta"));
  EXPECT_THAT(message({.logit_bias = {{1, nan}}}), HasSubstr("logit_bias[0]"));
}

TEST(SamplerParams, OrdersInBothSpellings) {
  std::string names;
  for (SamplerKind kind : default_sampler_order())
    names += (names.empty() ? "" : ";") + std::string(name_of(kind));
  EXPECT_EQ(names, "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature");
  EXPECT_EQ(*parse_sampler_names(names), default_sampler_order());
  EXPECT_EQ(*parse_sampler_letters("edskypmxt"), default_sampler_order());
  EXPECT_THAT(*parse_sampler_names("temp;top-k;typical;min-p"),
              ElementsAre(SamplerKind::kTemperature, SamplerKind::kTopK, SamplerKind::kTypicalP,
                          SamplerKind::kMinP));
  EXPECT_TRUE(parse_sampler_names("")->empty());
  EXPECT_THAT(parse_sampler_names("top_k;tfs_z").error().message, HasSubstr("'tfs_z'"));
  EXPECT_THAT(parse_sampler_names("top_k;;temp").error().message, HasSubstr("''"));
  EXPECT_THAT(parse_sampler_letters("kq").error().message, HasSubstr("'q'"));
}

TEST(SamplerParams, LogitBiasIsReadExactly) {
  const auto read = [](const char* text) {
    const Result<LogitBias> b = parse_logit_bias(text);
    return b.ok() ? fmt::format("{} {}", b->id, b->bias) : b.error().message;
  };
  EXPECT_EQ(read("15043+1.5"), "15043 1.5");
  EXPECT_EQ(read("15043-1"), "15043 -1");
  EXPECT_EQ(read("0-inf"), "0 -inf");
  for (const char* bad : {"", "12", "+1", "-1+2", "12+", "12*3", "12+x", "12+1 ", "12+inf",
                          "12+nan", "12+-3", "99999999999+1", "1.5+2"})
    EXPECT_THAT(read(bad), HasSubstr("'" + std::string(bad) + "' is not a token id with a bias"));
}

TEST(SamplerParams, IsArgmaxOnlyWhenNothingCanChangeIt) {
  EXPECT_FALSE(is_argmax({}));
  EXPECT_TRUE(is_argmax({.temp = 0.0f}));
  EXPECT_TRUE(is_argmax({.top_k = 1}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .order = {SamplerKind::kTopP}}));
  EXPECT_FALSE(is_argmax({.top_k = 1, .order = {SamplerKind::kTopP}}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .penalty_freq = 0.1f}));
  EXPECT_TRUE(is_argmax({.temp = 0.0f, .penalty_last_n = 0, .penalty_freq = 0.1f}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .dry_multiplier = 0.1f}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .typical_p = 0.5f}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .xtc_probability = 0.5f}));
  EXPECT_FALSE(is_argmax({.temp = 0.0f, .logit_bias = {{1, 1.0f}}}));
  EXPECT_FALSE(is_argmax({.top_k = 1, .mirostat = 2}));
}

}  // namespace
}  // namespace infer::text
