#include "tests/golden/convert_fixture.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "core/model/arch.h"
#include "core/model/hf.h"
#include "quantize/convert/hf_map.h"
#include "quantize/convert/json.h"
#include "tests/support/hf_keys.h"

/// Hugging Face folders, as they are found and as they should not be. That the conversion is right
/// is judged by the logits of golden_parity; here it is compared with itself on other ways to the
/// same weights, and its refusals are read.
namespace infer::test {
namespace {

/// Keys with types, values and order, and names of tensors, as llama.cpp's converter writes them.
TEST_F(Convert, NamesOfLlamaCpp) {
  const Json all = must(read_json("tests/data/hf_keys.json")).at("checkpoints");
  EXPECT_EQ(all.size(), 19U);
  for (const auto& [name, entry] : all.items()) {
    const auto folder = shared_dir() / "golden/hf" / name;
    const auto source = must(quantize::open_hf(folder.string(), {}));
    const std::string arch(must(source->header().get_string("general.architecture")));
    std::vector<std::string> keys = arch_keys_of(source->header(), arch);
    std::vector<std::string> wanted = listed_keys(entry.at("keys"));
    // Its converter leaves the window of Mistral out, and knows one width of GPT-2 only.
    std::erase(keys, "llama.attention.sliding_window UINT32 8");
    std::replace(wanted.begin(), wanted.end(), std::string("gpt2.feed_forward_length UINT32 512"),
                 std::string("gpt2.feed_forward_length UINT32 160"));
    EXPECT_THAT(keys, testing::ElementsAreArray(wanted)) << name;

    const SafeTensors weights = must(SafeTensors::open_folder(folder.string()));
    const model::ArchDef* def = model::find_arch(arch);
    const auto root = must(quantize::read_json((folder / "config.json").string()));
    const auto mapped = must(
        quantize::map_tensors(weights, *def->hf, model::HfConfig(root, "config.json"), nullptr));
    size_t n_named = 0;
    for (const quantize::MappedTensor& m : mapped) {
      EXPECT_NE(source->header().find_tensor(m.name), nullptr) << m.name;
      if (m.is_stacked) continue;
      ++n_named;
      EXPECT_EQ(entry.at("tensors").at(m.slices[0].t->name), m.name) << name;
    }
    EXPECT_EQ(n_named, entry.at("tensors").size()) << name;
  }
}

TEST_F(Convert, ShardsAreTheSameModel) {
  for (const char* name : {"llama", "qwen3-moe"}) {
    const Checkpoint c(name);
    expect_same_tensors(golden(name), converted(c, 3));
  }
  // Without the index all parts belong to it.
  const auto to = next();
  Checkpoint("llama").write(to, 2);
  std::filesystem::remove(to / "model.safetensors.index.json");
  expect_same_tensors(golden("llama"), must(convert_hf(to)));
}

TEST_F(Convert, ShardsMissingOrMisnamed) {
  const Checkpoint c("llama");
  const auto to = next();
  c.write(to, 2);
  const auto index = to / "model.safetensors.index.json";
  const Json good = must(read_json(index));
  const auto error_with = [&](const std::string& tensor, const Json& file) {
    Json bad = good;
    bad["weight_map"][tensor] = file;
    std::ofstream(index) << bad.dump();
    const auto source = quantize::open_hf(to.string(), {});
    return source.ok() ? "accepted" : source.error().message;
  };
  const std::string path = index.string();
  EXPECT_EQ(error_with("model.norm.weight", "../model.safetensors"),
            path + ": tensor 'model.norm.weight': no name of a .safetensors file");
  EXPECT_EQ(error_with("model.norm.weight", 5),
            path + ": tensor 'model.norm.weight': no name of a .safetensors file");
  EXPECT_EQ(error_with("x", "model-00001-of-00002.safetensors"),
            path + ": tensor 'x' is not in model-00001-of-00002.safetensors");
  EXPECT_NE(error_with("x", "other.safetensors").find("other.safetensors: cannot open"),
            std::string::npos);
}

TEST_F(Convert, PickleIsRefused) {
  for (const char* file : {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"}) {
    const auto to = next();
    Checkpoint("llama").write(to);
    std::filesystem::rename(to / "model.safetensors", to / file);
    const auto source = quantize::open_hf(to.string(), {});
    ASSERT_FALSE(source.ok());
    EXPECT_EQ(source.error().message,
              fmt::format("{}: only pickle weights ({}), which are programs and are not run; save "
                          "the model as safetensors",
                          to.string(), file));
  }
  const auto empty = next();
  Checkpoint("llama").write(empty);
  std::filesystem::remove(empty / "model.safetensors");
  EXPECT_EQ(quantize::open_hf(empty.string(), {}).error().message,
            empty.string() + ": neither model.safetensors nor model.safetensors.index.json");
  EXPECT_NE(quantize::open_hf((folder_ / "no").string(), {}).error().message.find("config.json"),
            std::string::npos);
}

TEST_F(Convert, RefusalsNameWhatIsWrong) {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const auto config = [](const char* key, const Json& value) {
    return [=](Checkpoint& c) { c.config[key] = value; };
  };
  EXPECT_EQ(refusal("llama", [&](Checkpoint& c) { c.erase(q); }),
            ": tensor '" + q + "' is missing, which becomes 'blk.1.attn_q.weight' [128, 128]");
  EXPECT_EQ(refusal("llama",
                    [&](Checkpoint& c) {
                      c.entry(q).shape = {64, 256};
                    }),
            ": tensor '" + q +
                "' becomes 'blk.1.attn_q.weight' [256, 64], but config.json wants "
                "[128, 128]");
  EXPECT_EQ(refusal("llama", [&](Checkpoint& c) { c.entry(q).name = "model.extra"; }),
            "/model.safetensors: tensor 'model.extra': has no place in this architecture");
  EXPECT_EQ(refusal("qwen2",
                    [](Checkpoint& c) {
                      c.entries.push_back({"model.layers.0.self_attn.q_norm.weight",
                                           "BF16",
                                           {64},
                                           std::vector<std::byte>(128)});
                    }),
            ": tensor 'model.layers.0.self_attn.q_norm.weight' ('blk.0.attn_q_norm.weight') is no "
            "part of qwen2 here");
  EXPECT_EQ(refusal("llama", [&](Checkpoint& c) { c.entry(q).dtype = "I16"; }),
            "/model.safetensors: tensor '" + q + "': weights of type I16");
  EXPECT_EQ(refusal("mixtral-moe",
                    [](Checkpoint& c) {
                      c.erase("model.layers.0.block_sparse_moe.experts.2.w1.weight");
                    }),
            "/config.json: expert 2 of 'blk.0.ffn_gate_exps.weight' is missing");
  EXPECT_EQ(refusal("llama", config("vocab_size", 500)),
            "/config.json: key 'vocab_size' = 500, but the embedding has 512 rows");
  EXPECT_EQ(refusal("llama", config("num_attention_heads", nullptr)),
            "/config.json: key 'num_attention_heads' = null: a model needs heads");
  EXPECT_EQ(refusal("llama", config("hidden_size", "x")),
            "/config.json: key 'hidden_size' = 'x': must be an integer");
  EXPECT_EQ(refusal("llama", config("num_key_value_heads", 0)),
            "/config.json: key 'llama.attention.head_count_kv' = 0: must be in [1, 16384]");
  EXPECT_EQ(refusal("llama", config("hidden_act", "relu")),
            "/config.json: key 'hidden_act' = 'relu': known is silu");
  EXPECT_EQ(refusal("llama", config("rope_parameters", {{"rope_type", "dynamic"}, {"factor", 2}})),
            "/config.json: rope_parameters: key 'rope_type' = 'dynamic': not known for this "
            "architecture");
  EXPECT_EQ(refusal("llama", config("quantization_config", {{"quant_method", "gptq"}})),
            "/config.json: quantization_config: key 'quant_method' = 'gptq': only 8-bit floats are "
            "read; convert the original model");
  EXPECT_EQ(refusal("llama", config("architectures", Json::array({"NoSuchModel"})))
                .rfind("/config.json: key 'architectures' = 'NoSuchModel': not supported (known: "),
            0U);
  EXPECT_EQ(refusal("qwen3-moe", config("norm_topk_prob", false)),
            "/config.json: key 'norm_topk_prob' = false: this architecture normalises the weights "
            "of experts");
  EXPECT_EQ(refusal("qwen2", config("layer_types", {"full_attention", "sliding_attention"})),
            "/config.json: key 'layer_types' = an array of 2: sliding windows of Qwen have no form "
            "in GGUF");
  EXPECT_EQ(refusal("mpt-alibi", [](Checkpoint& c) { c.config["attn_config"]["clip_qkv"] = 6; }),
            "/config.json: attn_config: key 'clip_qkv' = 6: clamping of q, k and v is not known");
  EXPECT_EQ(refusal("gemma2", config("query_pre_attn_scalar", 256)),
            "/config.json: key 'query_pre_attn_scalar' = 256: GGUF has no key for it, readers take "
            "128");
}

TEST_F(Convert, PanelsAreTheWhole) {
  for (const char* name : {"llama", "gpt2", "gpt-neox", "gemma3", "qwen2-moe", "llama3-rope"}) {
    SCOPED_TRACE(name);
    const auto source = must(quantize::open_hf((shared_dir() / "golden/hf" / name).string(), {}));
    int64_t n_stored = 0;
    expect_panels(*source, n_stored);
    EXPECT_GT(n_stored, 100);
  }
}

/// The names of openai-community/gpt2 and bigscience/bloom have no prefix; masks are not weights.
TEST_F(Convert, NamesWithoutPrefix) {
  for (const char* name : {"gpt2", "bloom-alibi"}) {
    Checkpoint c(name);
    for (Entry& e : c.entries) e.name = e.name.substr(std::string("transformer.").size());
    if (std::string(name) == "gpt2")
      c.entries.push_back({"h.0.attn.bias", "BOOL", {1, 1, 4, 4}, std::vector<std::byte>(16)});
    expect_same_tensors(golden(name), converted(c));
  }
}

/// A tied output matrix that stands in the file all the same is not written.
TEST_F(Convert, TiedOutputIsLeftOut) {
  Checkpoint c("llama-tied-bpe");
  Entry head = c.entry("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  c.entries.push_back(head);
  expect_same_tensors(golden("llama-tied-bpe"), converted(c));
  c.config["tie_word_embeddings"] = false;
  EXPECT_NE(converted(c).find_tensor("output.weight"), nullptr);
}

/// Gemma 3 with pictures: settings inside text_config, names inside language_model.
TEST_F(Convert, TextModelOfALargerOne) {
  Checkpoint c("gemma3");
  Json outer{{"architectures", {"Gemma3ForConditionalGeneration"}}};
  outer["bos_token_id"] = 1;
  outer["eos_token_id"] = 2;
  c.config.erase("architectures");
  outer["text_config"] = c.config;
  c.config = outer;
  for (Entry& e : c.entries) e.name = "language_model." + e.name;
  c.entries.push_back({"vision_tower.x.weight", "U8", {1}, std::vector<std::byte>(1)});
  const auto to = next();
  c.write(to);
  std::vector<std::string> lines;
  const auto source = must(quantize::open_hf(
      to.string(),
      {.name = "named", .log = [&](std::string_view line) { lines.emplace_back(line); }}));
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0], to.string() + ": 1 tensors are no part of the language model");
  const GgufImage image = must(image_of(*source, DType::kF32));
  EXPECT_EQ(std::get<std::string>(*image.find("general.name")), "named");
  expect_same_tensors(golden("gemma3"), image);
}

/// Long contexts of Phi-3: factors and scale as llama.cpp's converter computes them.
TEST_F(Convert, LongRope) {
  Checkpoint c("phi3");
  std::vector<double> factors(32);
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = 1.0 + static_cast<double>(i) * 0.5;
  c.config["max_position_embeddings"] = 131072;
  c.config["original_max_position_embeddings"] = 4096;
  c.config.erase("rope_parameters");
  c.config["rope_theta"] = 10000.0;
  c.config["rope_scaling"] = {{"type", "su"}, {"long_factor", factors}, {"short_factor", factors}};
  GgufImage image = converted(c);
  EXPECT_EQ(std::get<uint32_t>(*image.find("phi3.rope.scaling.original_context_length")), 4096U);
  EXPECT_FLOAT_EQ(std::get<float>(*image.find("phi3.rope.scaling.attn_factor")), 1.19023807f);
  ASSERT_NE(image.find_tensor("rope_factors_long.weight"), nullptr);
  EXPECT_EQ(image.find_tensor("rope_factors_short.weight")->shape, (std::vector<int64_t>{32}));
  EXPECT_TRUE(model_of(image, "longrope").ok());
  factors.pop_back();
  EXPECT_EQ(
      refusal("phi3",
              [&](Checkpoint& bad) {
                bad.config = c.config;
                bad.config["rope_scaling"]["short_factor"] = factors;
              }),
      "/config.json: rope_scaling: key 'short_factor' = an array of 31: must have 32 numbers");
}

}  // namespace
}  // namespace infer::test
