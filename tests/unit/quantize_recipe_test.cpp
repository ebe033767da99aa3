// Types per tensor against llama.cpp's own quantizer (tests/data/make_recipe_types.py made the
// answers).
#include <algorithm>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/base/quant_types.h"
#include "gguf/header_builder.h"
#include "gguf/reader.h"
#include "quantize/recipe.h"
#include "tests/support/test_env.h"

namespace infer::quantize {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// A header in memory and what is read from it.
struct Header {
  std::vector<std::byte> bytes;
  std::shared_ptr<const gguf::Reader> reader;
};

Header finish(gguf::HeaderBuilder& builder) {
  Header h;
  h.bytes = *builder.encode();
  h.reader = *gguf::Reader::parse(h.bytes, "model", {.header_only = true});
  return h;
}

void add_tensor(gguf::HeaderBuilder& out, const std::string& name, const json& shape) {
  const auto ne = shape.get<std::vector<int64_t>>();
  ASSERT_TRUE(out.add_tensor(name, ne.size() == 1 ? DType::kF32 : DType::kF16, ne).ok()) << name;
}

Header make_header(const json& model) {
  gguf::HeaderBuilder out("model");
  const std::string arch = model["arch"];
  EXPECT_TRUE(out.add_string("general.architecture", arch).ok());
  for (const auto& [key, value] : model["keys"].items()) {
    const std::string full = arch + "." + key;
    EXPECT_TRUE((value.is_number_float() ? out.add<float>(full, value.get<float>())
                                         : out.add<uint32_t>(full, value.get<uint32_t>()))
                    .ok());
  }
  for (const auto& t : model["once"]) add_tensor(out, t[0], t[1]);
  for (int64_t l = 0; l < model["keys"]["block_count"].get<int64_t>(); ++l) {
    for (const auto& t : model["each"])
      add_tensor(out, "blk." + std::to_string(l) + "." + t[0].get<std::string>(), t[1]);
  }
  return finish(out);
}

RecipeOptions make_options(const json& answer) {
  RecipeOptions o;
  o.target = find_target(answer["target"].get<std::string>());
  const json& flags = answer["options"];
  o.has_imatrix = flags.contains("imatrix");
  o.pure = flags.contains("pure");
  o.leave_output = flags.contains("leave_output");
  if (flags.contains("output_type"))
    o.output_type = dtype_from_name(flags["output_type"].get<std::string>());
  if (flags.contains("embedding_type"))
    o.embedding_type = dtype_from_name(flags["embedding_type"].get<std::string>());
  if (flags.contains("tensor_types")) {
    for (const auto& rule : flags["tensor_types"]) {
      o.tensor_types.push_back(*parse_tensor_type_rule(
          rule[0].get<std::string>() + "=" + rule[1].get<std::string>(), "--tensor-type"));
    }
  }
  return o;
}

/// Types in the order of make_header's tensors.
std::vector<std::string> expected_types(const json& answer, size_t n_layer) {
  auto types = answer["once"].get<std::vector<std::string>>();
  std::vector<std::vector<std::string>> each;
  for (const auto& runs : answer["each"]) {
    auto& column = each.emplace_back();
    for (const auto& run : runs) column.insert(column.end(), run[1].get<size_t>(), run[0]);
  }
  for (size_t l = 0; l < n_layer; ++l) {
    for (const auto& column : each) types.push_back(column.at(l));
  }
  return types;
}

TEST(QuantizeRecipe, TypesAreThoseOfLlamaCpp) {
  std::ifstream in("tests/data/recipe_types.json");
  const json data = json::parse(in);
  ASSERT_GT(data["answers"].size(), 400u);
  for (const auto& [name, model] : data["models"].items()) {
    const Header header = make_header(model);
    for (const auto& answer : data["answers"]) {
      if (answer["model"] != name) continue;
      SCOPED_TRACE(name + " " + answer["target"].dump() + " " + answer["options"].dump());
      const RecipeOptions options = make_options(answer);
      ASSERT_NE(options.target, nullptr);
      const auto choices = choose_types(*header.reader, options);
      ASSERT_TRUE(choices.ok()) << choices.error().message;
      const auto expected = expected_types(answer, model["keys"]["block_count"]);
      ASSERT_EQ(choices->size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(name_of((*choices)[i].type), expected[i])
            << header.reader->tensors()[i].name << ": " << (*choices)[i].why;
      }
    }
  }
}

TEST(QuantizeRecipe, TypesOfTheSharedGoldenFile) {
  const auto path = test::shared_dir() / "golden" / "quantize-tiny.json";
  std::ifstream golden_in(path);
  if (!golden_in) GTEST_SKIP() << path << " is not there";
  const json golden = json::parse(golden_in);
  std::ifstream in("tests/data/recipe_types.json");
  const Header header = make_header(json::parse(in)["models"]["tiny"]);
  for (const auto& [mix, expected] : golden.items()) {
    SCOPED_TRACE(mix);
    RecipeOptions options;
    options.target = find_target(mix);
    ASSERT_NE(options.target, nullptr);
    const auto choices = choose_types(*header.reader, options);
    ASSERT_EQ(choices->size(), expected["tensors"].size());
    for (size_t i = 0; i < choices->size(); ++i) {
      const std::string name(header.reader->tensors()[i].name);
      EXPECT_EQ(dtype_from_name(expected["tensors"][name]["type"].get<std::string>()),
                (*choices)[i].type)
          << name;
    }
  }
}

TEST(QuantizeRecipe, TargetsByNameAliasAndNumber) {
  EXPECT_EQ(find_target("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_target("Q4_K")->name, "Q4_K_M");
  EXPECT_EQ(find_target("q3_k")->name, "Q3_K_M");
  EXPECT_EQ(find_target("Q5_K")->name, "Q5_K_M");
  EXPECT_EQ(find_target("15")->name, "Q4_K_M");
  EXPECT_EQ(find_target("0")->name, "F32");
  EXPECT_EQ(find_target("32")->name, "BF16");
  EXPECT_TRUE(find_target("copy")->copy);
  for (const char* bad : {"", "Q4", "IQ2_XXS", "19", "-1", "15x", " 15", "Q4_K_M ", "99999999999"})
    EXPECT_EQ(find_target(bad), nullptr) << bad;
  for (const Target& t : targets()) EXPECT_EQ(find_target(t.name), &t);
}

TEST(QuantizeRecipe, BadTypesAndExpressionsAreNamed) {
  EXPECT_EQ(parse_written_type("Q6_K", "--x").value(), DType::kQ6_K);
  for (const char* bad : {"", "q4_k_m", "iq4_xs", "i8", "f64", "q8_1"}) {
    const auto r = parse_written_type(bad, "--output-tensor-type");
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_THAT(r.error().message, HasSubstr("--output-tensor-type: '"));
  }
  for (const char* bad :
       {"", "q8_0", "=q8_0", "a=", "a=zz", "(=q8_0", "[b=q8_0", "a{9999999=q8_0"}) {
    const auto r = parse_tensor_type_rule(bad, "--tensor-type");
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(r.error().message, HasSubstr("--tensor-type"));
  }
}

Header one_tensor(const std::string& name, std::vector<int64_t> shape) {
  gguf::HeaderBuilder out("model");
  EXPECT_TRUE(out.add_tensor(name, DType::kF16, shape).ok());
  return finish(out);
}

TEST(QuantizeRecipe, FallbackSaysWhy) {
  const Header h = one_tensor("blk.0.attn_q.weight", {576, 4});
  RecipeOptions o;
  o.target = find_target("Q4_K_M");
  Choice c = choose_types(*h.reader, o)->front();
  EXPECT_EQ(c.type, DType::kQ5_0);
  EXPECT_EQ(c.wanted, DType::kQ4_K);
  EXPECT_EQ(c.reason, Reason::kFallback);
  EXPECT_EQ(c.why, "row of 576 is no multiple of 256");
  o.tensor_types.push_back(*parse_tensor_type_rule("ATTN_Q=f16", "--tensor-type"));
  c = choose_types(*h.reader, o)->front();
  EXPECT_EQ(c.type, DType::kF16);
  EXPECT_EQ(c.reason, Reason::kFlag);
}

TEST(QuantizeRecipe, OutputMatrixThatFallsBackSaysWhy) {
  // "output.weight", and token embeddings in its place.
  for (const char* name : {"output.weight", "token_embd.weight"}) {
    for (const auto& [target, n_k, type] :
         {std::tuple("Q4_K_M", 576, DType::kQ8_0), std::tuple("Q4_0", 576, DType::kQ8_0),
          std::tuple("Q6_K", 80, DType::kF16), std::tuple("Q4_K_M", 512, DType::kQ6_K)}) {
      SCOPED_TRACE(fmt::format("{} {} {}", name, target, n_k));
      const Header h = one_tensor(name, {n_k, 4});
      RecipeOptions o;
      o.target = find_target(target);
      const Choice c = choose_types(*h.reader, o)->front();
      EXPECT_EQ(c.type, type);
      EXPECT_EQ(c.wanted, DType::kQ6_K);
      EXPECT_EQ(c.reason, n_k % 256 == 0 ? Reason::kRule : Reason::kFallback);
      EXPECT_THAT(c.why, HasSubstr(n_k % 256 == 0 ? "output matrix" : "is no multiple of 256"));
    }
  }
}

TEST(QuantizeRecipe, RulesHoldForFloatsToo) {
  // llama.cpp forgets --tensor-type when the target is no quantised type; we do what it says.
  const Header h = one_tensor("blk.0.attn_q.weight", {64, 4});
  RecipeOptions o;
  o.target = find_target("BF16");
  o.tensor_types.push_back(*parse_tensor_type_rule("attn_q=q8_0", "--tensor-type"));
  EXPECT_EQ(choose_types(*h.reader, o)->front().type, DType::kQ8_0);
}

TEST(QuantizeRecipe, WhatIsNeverQuantised) {
  RecipeOptions o;
  o.target = find_target("Q8_0");
  for (const char* name :
       {"blk.0.attn_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.bias",
        "position_embd.weight", "blk.1.ssm_conv1d.weight", "token_types.weight"}) {
    const Header h = one_tensor(name, {64, 4});
    const Choice c = choose_types(*h.reader, o)->front();
    EXPECT_EQ(c.type, DType::kF16) << name;
    EXPECT_EQ(c.reason, Reason::kKept) << name;
    EXPECT_NE(c.why, "") << name;
  }
  const Header flat = one_tensor("blk.0.attn_q.weight", {64, 1});
  EXPECT_EQ(choose_types(*flat.reader, o)->front().type, DType::kF16);
  o.target = find_target("COPY");
  const Header h = one_tensor("blk.0.attn_q.weight", {64, 4});
  EXPECT_EQ(choose_types(*h.reader, o)->front().why, "copied");
}

TEST(QuantizeRecipe, KeysOfTheWrongKindAreErrors) {
  gguf::HeaderBuilder out("model");
  ASSERT_TRUE(out.add_string("general.architecture", "llama").ok());
  ASSERT_TRUE(out.add_string("llama.block_count", "many").ok());
  const Header h = finish(out);
  RecipeOptions o;
  o.target = find_target("Q8_0");
  const auto r = choose_types(*h.reader, o);
  ASSERT_FALSE(r.ok());
  EXPECT_THAT(r.error().message, HasSubstr("llama.block_count"));
}

TEST(QuantizeRecipe, LowestMixNeedsAMatrix) {
  EXPECT_TRUE(needs_imatrix(*find_target("Q2_K_S"), DType::kQ2_K, "blk.0.attn_q.weight"));
  EXPECT_FALSE(needs_imatrix(*find_target("Q2_K_S"), DType::kQ2_K, "token_embd.weight"));
  EXPECT_FALSE(needs_imatrix(*find_target("Q2_K"), DType::kQ2_K, "blk.0.attn_q.weight"));
}

}  // namespace
}  // namespace infer::quantize
