#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/quant_types.h"
#include "tests/golden/schedule.h"
#include "tests/support/json_file.h"
#include "tests/support/source_image.h"
#include "tests/support/test_env.h"

/// design.md section 3, "One reduction order": logits are the same bits whatever else happens.
namespace infer::test {
namespace {

struct Variant {
  const char* checkpoint;  ///< a folder of golden/hf, or "stories260K"
  DType type;
  bool precise = false;
  DType type_k = DType::kF16, type_v = DType::kF16;
};

// Every weight type the CPU computes, every kind of cache group and of K and V, every architecture,
// two modes.
// llama-kquant has rows of 256.
constexpr Variant kVariants[] = {
    {"llama", DType::kF32},
    {"llama-yarn", DType::kF16},
    {"gemma3", DType::kBF16},
    {"mistral-swa", DType::kF32, true},
    {"llama-tied-bpe", DType::kQ8_0},
    {"mistral-swa", DType::kQ4_0},
    {"gemma3", DType::kQ8_0},
    {"llama-kquant", DType::kQ4_1},
    {"llama-kquant", DType::kQ5_0},
    {"llama-kquant", DType::kQ5_1},
    {"llama-kquant", DType::kQ4_K},
    {"llama-kquant", DType::kQ5_K},
    {"llama-kquant", DType::kQ6_K},
    {"llama-kquant", DType::kQ4_K, true},
    {"llama-kquant", DType::kQ2_K},
    {"llama-kquant", DType::kQ3_K},
    {"llama-kquant", DType::kIQ4_NL},
    {"llama-kquant", DType::kIQ4_XS},
    {"stories260K", DType::kF32},
    {"gemma2", DType::kF16},
    {"qwen2", DType::kQ8_0},
    {"qwen3", DType::kQ4_0},
    {"phi3", DType::kQ4_0},
    {"gpt2", DType::kF32},
    {"gpt-neox", DType::kQ8_0},
    {"bloom-alibi", DType::kQ4_0},
    {"mpt-alibi", DType::kF16},
    {"mixtral-moe", DType::kQ4_0},
    {"mixtral-moe", DType::kF32, true},
    {"qwen2-moe", DType::kQ8_0},
    {"qwen3-moe", DType::kBF16},
    {"mistral-swa", DType::kQ8_0, false, DType::kQ8_0, DType::kQ8_0},
    {"llama-kquant", DType::kQ4_K, false, DType::kQ4_0, DType::kQ4_0},
    {"gemma3", DType::kBF16, false, DType::kQ8_0, DType::kQ4_0},
};
// 1,020 schedules at the best level, 170 at the generic one.
constexpr int kSchedules = 30, kGenericSchedules = 5;

std::string label_of(const Variant& v) {
  std::string label = std::string(v.checkpoint) + "_" + std::string(name_of(v.type));
  if (v.precise) label += "_precise";
  if (v.type_k != DType::kF16)
    label += fmt::format("_k_{}_v_{}", name_of(v.type_k), name_of(v.type_v));
  return label;
}

/// The checkpoint with a longer context, so that sequences cross a span of 512 slots.
std::shared_ptr<const model::Model> model_for(const Variant& v) {
  if (std::string(v.checkpoint) == "stories260K") return stories_model();
  GgufImage image = must(convert_hf(shared_dir() / "golden/hf" / v.checkpoint, v.type));
  const std::string arch = std::get<std::string>(*image.find("general.architecture"));
  // A table of learned positions has as many rows as the model has positions.
  if (image.find_tensor("position_embd.weight") == nullptr)
    image.set(arch + ".context_length", uint32_t{1024});
  return mapped_model_of(image, label_of(v));
}

class Exactness : public ::testing::TestWithParam<std::tuple<Variant, std::string>> {};

TEST_P(Exactness, RandomSchedules) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const auto& [variant, isa] = GetParam();
  if (kSanitized && isa != isa_levels().back())
    GTEST_SKIP() << "too slow with sanitizers; ops and parity run the other levels under them";
  ScheduleConfig config{.label = label_of(variant),
                        .model = model_for(variant),
                        .isa = isa,
                        .options = {},
                        .n_logprobs = 512};
  config.options.precise = variant.precise;
  config.options.type_k = variant.precise ? DType::kF32 : variant.type_k;
  config.options.type_v = variant.precise ? DType::kF32 : variant.type_v;
  config.options.n_ctx = std::min<int64_t>(1024, config.model->hparams().n_ctx_train);
  std::vector<std::vector<TokenId>> prompts =
      family_prompts(static_cast<int32_t>(config.model->hparams().n_vocab), 7);
  std::erase_if(prompts, [&](const auto& p) {
    const auto n_tok = static_cast<int64_t>(p.size());
    return n_tok + 64 > config.options.n_ctx || n_tok > scaled(1024, 130);
  });

  const ScheduleRunner runner(config, prompts, /*seed=*/11);
  const int n_schedule = isa == isa_levels().back() ? scaled(kSchedules, 1) : kGenericSchedules;
  ScheduleStats all;
  uint64_t first_seed = 1000;  // each variant has schedules of its own
  for (const char c : config.label) first_seed = first_seed * 31 + static_cast<unsigned char>(c);
  for (int i = 0; i < n_schedule && !HasFailure(); ++i)
    all += runner.run(first_seed + static_cast<uint64_t>(i));
  fmt::print(
      "[ measured ] {} {}: {} schedules, {} requests ({} forked, {} cancelled), {} rows compared, "
      "{} preemptions, {} cached tokens\n",
      config.label, isa, n_schedule, all.n_request, all.n_forked, all.n_cancelled,
      all.n_row_compared, all.n_preempted, all.n_cached_tok);
  EXPECT_GT(all.n_row_compared, 0);
  if (n_schedule >= kSchedules && !HasFailure()) {
    // The schedules must have met what they are for.
    const bool has_full_group = kv_bytes_per_tok(*config.model, config.options) > 0;
    EXPECT_TRUE(all.n_preempted > 0 || !has_full_group);
    EXPECT_GT(all.n_cached_tok, 0);
    EXPECT_GT(all.n_forked, 0);
    EXPECT_GT(all.n_cancelled, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, Exactness,
                         ::testing::Combine(::testing::ValuesIn(kVariants),
                                            ::testing::ValuesIn(isa_levels())),
                         [](const auto& p) {
                           std::string label =
                               label_of(std::get<0>(p.param)) + "_" + std::get<1>(p.param);
                           std::replace(label.begin(), label.end(), '-', '_');
                           return label;
                         });

TEST(ExactnessSmolLm2, RandomSchedules) {
  const auto path = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!has_shared() || !std::filesystem::exists(path))
    GTEST_SKIP() << "no demo model (INFER_MODELS) or no shared data";
  ScheduleConfig config{
      .label = "smollm2", .model = model_of(path), .isa = "", .options = {}, .n_logprobs = 64};
  config.options.n_ctx = 1024;
  std::vector<std::vector<TokenId>> prompts;
  const auto texts = must(read_json(shared_dir() / "golden/smollm2/prompts.json"));
  for (const auto& text : texts) {
    prompts.push_back(must(config.model->tokenizer().encode(text.get<std::string>())));
    // The same beginning with another end, for the prefix cache.
    prompts.push_back(prompts.back());
    prompts.back().push_back(prompts.front().front());
  }
  const auto family = family_prompts(static_cast<int32_t>(config.model->hparams().n_vocab), 5);
  prompts.insert(prompts.end(), family.begin() + 6, family.begin() + 14);
  prompts.push_back(family.back());
  if (kSanitized) prompts.resize(4);

  const ScheduleRunner runner(config, prompts, /*seed=*/3);
  ScheduleStats all;
  for (int i = 0; i < scaled(20, 1) && !HasFailure(); ++i)
    all += runner.run(static_cast<uint64_t>(500 + i));
  fmt::print(
      "[ measured ] smollm2: {} requests, {} rows compared, {} preemptions, {} cached tokens\n",
      all.n_request, all.n_row_compared, all.n_preempted, all.n_cached_tok);
  EXPECT_GT(all.n_row_compared, 0);
}

}  // namespace
}  // namespace infer::test
