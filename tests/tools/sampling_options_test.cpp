#include "tools/common/sampling_options.h"

#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace infer::tools {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Parsed {
  int code = 0;
  SamplingOptions options;
  std::string err;
};

Parsed parse(std::vector<std::string> args) {
  Parsed parsed;
  CLI::App app("", "test");
  add_sampling_options(app, &parsed.options);
  testing::internal::CaptureStderr();
  parsed.code = parse_args(app, std::move(args));
  parsed.err = testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(SamplingOptions, DefaultsAreThoseOfTheLibraryAndTheirSpellingsLlamaCpps) {
  const Parsed none = parse({});
  EXPECT_EQ(none.code, -1);
  EXPECT_EQ(none.options.seed, -1);
  EXPECT_EQ(none.options.params.order, text::default_sampler_order());
  EXPECT_TRUE(text::validate(none.options.params).ok());
  EXPECT_THAT(none.options.params.dry_breakers, ElementsAre("\n", ":", "\"", "*"));
}

TEST(SamplingOptions, EveryFlagReachesItsParameter) {
  const Parsed got = parse({"-s",
                            "7",
                            "--temp",
                            "0.5",
                            "--dynatemp-range",
                            "0.25",
                            "--dynatemp-exp",
                            "2",
                            "--top-k",
                            "5",
                            "--top-p",
                            "0.75",
                            "--min-p",
                            "0.125",
                            "--typical",
                            "0.875",
                            "--top-nsigma",
                            "1.5",
                            "--xtc-probability",
                            "0.5",
                            "--xtc-threshold",
                            "0.25",
                            "--repeat-last-n",
                            "-1",
                            "--repeat-penalty",
                            "1.25",
                            "--presence-penalty",
                            "-0.5",
                            "--frequency-penalty",
                            "0.75",
                            "--dry-multiplier",
                            "0.5",
                            "--dry-base",
                            "2",
                            "--dry-allowed-length",
                            "3",
                            "--dry-penalty-last-n",
                            "100",
                            "--dry-sequence-breaker",
                            "\\n\\n",
                            "--dry-sequence-breaker",
                            "#",
                            "--mirostat",
                            "2",
                            "--mirostat-ent",
                            "4",
                            "--mirostat-lr",
                            "0.5",
                            "-l",
                            "5+1.5",
                            "--logit-bias",
                            "6-inf",
                            "--samplers",
                            "temperature;top_k"});
  EXPECT_EQ(got.code, -1) << got.err;
  const text::SamplingParams p = got.options.with_seed();
  EXPECT_EQ(p.seed, 7u);
  EXPECT_EQ(p.temp, 0.5f);
  EXPECT_EQ(p.dynatemp_range, 0.25f);
  EXPECT_EQ(p.dynatemp_exponent, 2.0f);
  EXPECT_EQ(p.top_k, 5);
  EXPECT_EQ(p.top_p, 0.75f);
  EXPECT_EQ(p.min_p, 0.125f);
  EXPECT_EQ(p.typical_p, 0.875f);
  EXPECT_EQ(p.top_n_sigma, 1.5f);
  EXPECT_EQ(p.xtc_probability, 0.5f);
  EXPECT_EQ(p.xtc_threshold, 0.25f);
  EXPECT_EQ(p.penalty_last_n, -1);
  EXPECT_EQ(p.penalty_repeat, 1.25f);
  EXPECT_EQ(p.penalty_present, -0.5f);
  EXPECT_EQ(p.penalty_freq, 0.75f);
  EXPECT_EQ(p.dry_multiplier, 0.5f);
  EXPECT_EQ(p.dry_base, 2.0f);
  EXPECT_EQ(p.dry_allowed_length, 3);
  EXPECT_EQ(p.dry_penalty_last_n, 100);
  EXPECT_THAT(p.dry_breakers, ElementsAre("\n\n", "#"));
  EXPECT_EQ(p.mirostat, 2);
  EXPECT_EQ(p.mirostat_tau, 4.0f);
  EXPECT_EQ(p.mirostat_eta, 0.5f);
  ASSERT_EQ(p.logit_bias.size(), 2u);
  EXPECT_EQ(p.logit_bias[0].id, 5);
  EXPECT_EQ(p.logit_bias[0].bias, 1.5f);
  EXPECT_EQ(p.logit_bias[1].bias, -std::numeric_limits<float>::infinity());
  EXPECT_THAT(p.order, ElementsAre(text::SamplerKind::kTemperature, text::SamplerKind::kTopK));
  EXPECT_THAT(parse({"--sampling-seq", "kt"}).options.params.order,
              ElementsAre(text::SamplerKind::kTopK, text::SamplerKind::kTemperature));
  EXPECT_THAT(parse({"--dry-sequence-breaker", "none"}).options.params.dry_breakers, IsEmpty());
}

TEST(SamplingOptions, WrongValuesAreOneLineThatNamesTheFlag) {
  for (const auto& [flag, value] : std::vector<std::pair<std::string, std::string>>{
           {"--seed", "-2"},
           {"--temp", "nan"},
           {"--temp", "inf"},
           {"--temp", "warm"},
           {"--dynatemp-range", "-1"},
           {"--dynatemp-exp", "nan"},
           {"--top-k", "many"},
           {"--top-p", "-0.1"},
           {"--top-p", "nan"},
           {"--min-p", "1.5"},
           {"--typical", "-1"},
           {"--top-n-sigma", "nan"},
           {"--xtc-probability", "2"},
           {"--xtc-threshold", "-0.5"},
           {"--repeat-last-n", "-2"},
           {"--repeat-penalty", "0"},
           {"--presence-penalty", "nan"},
           {"--frequency-penalty", "1e99"},
           {"--dry-multiplier", "-1"},
           {"--dry-base", "0.5"},
           {"--dry-allowed-length", "-1"},
           {"--dry-penalty-last-n", "-2"},
           {"--dry-sequence-breaker", ""},
           {"--mirostat", "1"},
           {"--mirostat-ent", "-1"},
           {"--mirostat-lr", "nan"},
           {"--logit-bias", "5"},
           {"--logit-bias", "5+inf"},
           {"--samplers", "top_k;tfs_z"},
           {"--sampling-seq", "kq"},
       }) {
    const Parsed got = parse({flag, value});
    EXPECT_EQ(got.code, kExitUsage) << flag << " " << value;
    EXPECT_THAT(got.err, HasSubstr(flag)) << value;
    EXPECT_EQ(got.err.find('\n'), got.err.size() - 1) << got.err;
  }
}

TEST(SamplingOptions, WithoutASeedEachRunHasAnother) {
  const SamplingOptions options;
  EXPECT_NE(options.with_seed().seed, options.with_seed().seed);
}

}  // namespace
}  // namespace infer::tools
