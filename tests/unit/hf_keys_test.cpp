#include "core/model/hf.h"

#include <algorithm>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/model/arch.h"
#include "gguf/header_builder.h"
#include "quantize/convert/json.h"
#include "tests/support/hf_keys.h"

namespace infer::test {
namespace {

using Json = nlohmann::json;

const model::ArchDef* arch_of(const std::string& hf_name) {
  for (const model::ArchDef* arch : model::arch_registry()) {
    const auto names = arch->hf->names;
    if (std::find(names.begin(), names.end(), hf_name) != names.end()) return arch;
  }
  return nullptr;
}

struct Written {
  std::string error;
  std::vector<std::string> keys;
  std::vector<model::HfKeys::Tensor> tensors;
};

Written write(const Json& config) {
  const auto root = quantize::parse_json(config.dump(), "config.json");
  const model::ArchDef* arch = arch_of(config.at("architectures").at(0));
  if (!root.ok() || arch == nullptr) return {.error = "no such", .keys = {}, .tensors = {}};
  gguf::HeaderBuilder header("out");
  model::HfKeys out(std::string(arch->name), &header);
  const auto done = arch->hf->write_keys(model::HfConfig(*root, "config.json"), out);
  if (!done.ok()) return {.error = done.error().message, .keys = {}, .tensors = {}};
  EXPECT_TRUE(out.status().ok());
  const auto bytes = header.encode();
  const auto reader = gguf::Reader::parse(*bytes, "out");
  return {.error = {}, .keys = arch_keys_of(**reader, arch->name), .tensors = out.tensors()};
}

Json oracle() {
  std::ifstream in("tests/data/hf_keys.json");
  return Json::parse(in);
}

TEST(HfKeys, PublishedConfigurationsAsLlamaCpp) {
  const Json configs = oracle().at("configs");
  EXPECT_EQ(configs.size(), 16U);
  for (const auto& [name, entry] : configs.items()) {
    const Written got = write(entry.at("config"));
    EXPECT_EQ(got.error, "") << name;
    EXPECT_THAT(got.keys, testing::ElementsAreArray(listed_keys(entry.at("keys")))) << name;
  }
}

Json config_of(const std::string& name) { return oracle().at("configs").at(name).at("config"); }

/// Values of Llama 3.1's factors: the first pairs turn as they did, the last 8 times slower.
/// Source: the formula of transformers' modeling_rope_utils, evaluated in Python for pairs 0, 28,
/// 29, 32, 63.
TEST(HfKeys, Llama3Factors) {
  const Written got = write(config_of("Llama-3.1-8B"));
  ASSERT_EQ(got.tensors.size(), 1U);
  EXPECT_EQ(got.tensors[0].name, "rope_freqs.weight");
  const std::vector<float>& f = got.tensors[0].values;
  ASSERT_EQ(f.size(), 64U);
  EXPECT_EQ(f[0], 1.0f);
  EXPECT_EQ(f[28], 1.0f);
  EXPECT_NEAR(f[29], 1.207483871283662, 1e-6);
  EXPECT_NEAR(f[32], 2.6945296878947333, 1e-5);
  EXPECT_EQ(f[63], 8.0f);
}

TEST(HfKeys, SlidingWindowOfMistral) {
  Json config = config_of("Mistral-Nemo");
  config["sliding_window"] = 4096;
  const Written got = write(config);
  EXPECT_THAT(got.keys, testing::Contains("llama.attention.sliding_window UINT32 4096"));
  config["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(
      write(config).error,
      "config.json: key 'layer_types' = an array of 2: full attention beside a sliding window");
}

TEST(HfKeys, OtherWindowPatternsOfGemma3) {
  Json config = config_of("gemma-3-1b");
  config["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(write(config).keys,
              testing::Contains("gemma3.attention.sliding_window_pattern UINT32 2"));
  config["layer_types"].push_back("sliding_attention");
  EXPECT_EQ(write(config).error,
            "config.json: key 'layer_types' = an array of 4: layer 3 is 'sliding_attention'; full "
            "attention is known in every layer number 2 only");
}

/// Readers multiply by 1 + 0.1 ln(factor): what is written is the rest.
TEST(HfKeys, AttentionFactorOfYarn) {
  Json config = config_of("Qwen2.5-7B-yarn");
  config["rope_scaling"]["attention_factor"] = 1.138629436;
  const Written got = write(config);
  EXPECT_THAT(got.keys, testing::Contains("qwen2.rope.scaling.attn_factor FLOAT32 1"));
}

}  // namespace
}  // namespace infer::test
