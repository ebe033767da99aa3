#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/model/arch.h"
#include "core/model/hf.h"
#include "quantize/convert/hf_map.h"
#include "quantize/convert/hf_source.h"
#include "quantize/convert/json.h"
#include "quantize/convert/safetensors.h"
#include "tests/support/hf_keys.h"
#include "tests/support/json_file.h"
#include "tests/support/model_fixture.h"
#include "tests/support/safetensors_builder.h"
#include "tests/support/source_image.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_env.h"

/// Hugging Face folders, as they are found and as they should not be. That the conversion is right
/// is judged by the logits of golden_parity; here it is compared with itself on other ways to the
/// same weights, and its refusals are read.
namespace infer::test {
namespace {

using Json = nlohmann::json;
using quantize::SafeTensors;
using quantize::Source;

struct Entry {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

/// A checkpoint in memory, to be changed and written somewhere.
struct Checkpoint {
  std::filesystem::path origin;
  Json config;
  std::vector<Entry> entries;

  explicit Checkpoint(const std::string& name) : origin(shared_dir() / "golden/hf" / name) {
    config = must(read_json(origin / "config.json"));
    const SafeTensors file = must(SafeTensors::open_file((origin / "model.safetensors").string()));
    for (const auto& t : file.tensors()) {
      entries.push_back({t.name,
                         std::string(quantize::name_of(t.type)),
                         t.shape,
                         {t.data.begin(), t.data.end()}});
    }
  }
  Entry& entry(const std::string& name) {
    const auto it = std::find_if(entries.begin(), entries.end(),
                                 [&](const Entry& e) { return e.name == name; });
    if (it == entries.end()) throw std::runtime_error("no tensor " + name);
    return *it;
  }
  void erase(const std::string& name) {
    std::erase_if(entries, [&](const Entry& e) { return e.name == name; });
  }
  /// Tensors i, i + n_file, ... go to file i.
  void write(const std::filesystem::path& to, size_t n_file = 1) const {
    std::filesystem::create_directories(to);
    for (const auto& file : std::filesystem::directory_iterator(origin)) {
      const std::string name = file.path().filename().string();
      if (name.starts_with("tokenizer") || name.starts_with("generation"))
        std::filesystem::copy_file(file.path(), to / name);
    }
    std::ofstream(to / "config.json") << config.dump();
    Json map = Json::object();
    for (size_t i = 0; i < n_file; ++i) {
      const std::string name = n_file == 1
                                   ? "model.safetensors"
                                   : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n_file);
      SafetensorsBuilder b;
      for (size_t j = i; j < entries.size(); j += n_file) {
        b.add(entries[j].name, entries[j].dtype, entries[j].shape, entries[j].bytes);
        map[entries[j].name] = name;
      }
      const auto bytes = b.bytes();
      std::ofstream(to / name, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    }
    if (n_file > 1)
      std::ofstream(to / "model.safetensors.index.json") << Json{{"weight_map", map}}.dump();
  }
};

/// Equal tensors, whatever their order.
void expect_same_tensors(GgufImage a, GgufImage b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const GgufTensor& t : a.tensors) {
    const GgufTensor* other = b.find_tensor(t.name);
    ASSERT_NE(other, nullptr) << t.name;
    EXPECT_EQ(t.shape, other->shape) << t.name;
    EXPECT_EQ(t.bytes, other->bytes) << t.name;
  }
}

class Convert : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  }
  static GgufImage golden(const std::string& name) {
    return must(convert_hf(shared_dir() / "golden/hf" / name));
  }
  std::filesystem::path next() { return folder_ / fmt::format("m{}", n_++); }
  GgufImage converted(const Checkpoint& c, size_t n_file = 1) {
    const auto to = next();
    c.write(to, n_file);
    return must(convert_hf(to));
  }
  /// The refusal of a checkpoint that `spoil` changed.
  std::string refusal(const std::string& name, const std::function<void(Checkpoint&)>& spoil) {
    Checkpoint c(name);
    spoil(c);
    const auto to = next();
    c.write(to);
    const auto source = quantize::open_hf(to.string(), {});
    if (source.ok()) return "accepted";
    EXPECT_EQ(source.error().message.rfind(to.string(), 0), 0U) << source.error().message;
    EXPECT_EQ(source.error().message.find('\n'), std::string::npos);
    return source.error().message.substr(to.string().size());
  }
  int n_ = 0;
};

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
  EXPECT_EQ(refusal("gemma2", config("query_pre_attn_scalar", 256)),
            "/config.json: key 'query_pre_attn_scalar' = 256: GGUF has no key for it, readers take "
            "128");
}

/// Rows in panels of any size, and bytes where there are some, are those of the whole tensor.
TEST_F(Convert, PanelsAreTheWhole) {
  for (const char* name : {"llama", "gpt2", "gpt-neox", "gemma3", "qwen2-moe", "llama3-rope"}) {
    const auto source = must(quantize::open_hf((shared_dir() / "golden/hf" / name).string(), {}));
    const auto tensors = source->header().tensors();
    int64_t n_stored = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorView& view = tensors[i].view;
      const int64_t n_k = view.ne[0];
      const int64_t n_row = view.n_elem() / n_k;
      std::vector<float> whole(static_cast<size_t>(view.n_elem()));
      must(source->read_rows(i, 0, n_row, whole));
      for (const int64_t panel : {int64_t{1}, int64_t{7}, n_row}) {
        for (int64_t row = 0; row < n_row; row += panel) {
          const int64_t n = std::min(panel, n_row - row);
          std::vector<float> part(static_cast<size_t>(n * n_k));
          must(source->read_rows(i, row, n, part));
          ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + row * n_k))
              << tensors[i].name << " row " << row << " panel " << panel;
          const auto stored = source->stored_rows(i, row, n);
          source->release_rows(i, row, n);
          if (stored.empty()) continue;
          ++n_stored;
          ASSERT_EQ(stored.size(), part.size() * (view.type == DType::kF32 ? 4U : 2U));
          for (size_t j = 0; j < part.size(); ++j) {
            uint32_t bits = 0;
            if (view.type == DType::kF32) {
              std::memcpy(&bits, stored.data() + 4 * j, 4);
            } else {
              ASSERT_EQ(view.type, DType::kBF16);
              std::memcpy(reinterpret_cast<std::byte*>(&bits) + 2, stored.data() + 2 * j, 2);
            }
            ASSERT_EQ(std::bit_cast<float>(bits), part[j]) << tensors[i].name;
          }
        }
      }
    }
    EXPECT_GT(n_stored, 100) << name;
  }
}

/// Makes weight `name` F8_E4M3, each value times scales[scale_of(row, column)], and returns in F32
/// what it stands for.
Entry to_float8(Checkpoint& c, const std::string& name, const std::string& scale_name,
                std::vector<int64_t> scale_shape, const std::vector<float>& scales,
                const std::function<size_t(int64_t, int64_t)>& scale_of) {
  Entry& e = c.entry(name);
  const int64_t n_k = e.shape[1];
  std::vector<std::byte> codes(e.bytes.size() / 2);
  std::vector<std::byte> same;
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto bits = static_cast<uint8_t>(i * 37 % 126 + (i % 2) * 128);
    codes[i] = std::byte{bits};
    const auto at = static_cast<int64_t>(i);
    const float v = quantize::f32_from_e4m3(bits) * scales[scale_of(at / n_k, at % n_k)];
    const auto v_bytes = std::as_bytes(std::span(&v, 1));
    same.insert(same.end(), v_bytes.begin(), v_bytes.end());
  }
  const auto scale_bytes = std::as_bytes(std::span(scales));
  Entry plain{e.name, "F32", e.shape, same};
  e.dtype = "F8_E4M3";
  e.bytes = codes;
  c.entries.push_back(
      {scale_name, "F32", std::move(scale_shape), {scale_bytes.begin(), scale_bytes.end()}});
  return plain;
}

std::vector<float> steps(size_t n, float from, float step) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = from + static_cast<float>(i) * step;
  return out;
}

/// An FP8 checkpoint: what is written is what stands there times its scale.
TEST_F(Convert, Float8WithScales) {
  Checkpoint c("llama");
  c.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {48, 64}}};
  const std::string layer = "model.layers.0.";
  std::vector<Entry> plain;  // [160, 128] in blocks of [48, 64]: [4, 2]; of [128, 128]: [3, 2]
  plain.push_back(to_float8(
      c, layer + "self_attn.q_proj.weight", layer + "self_attn.q_proj.weight_scale_inv", {3, 2},
      steps(6, 0.5f, 0.3f), [](int64_t r, int64_t k) { return size_t(r / 48 * 2 + k / 64); }));
  plain.push_back(to_float8(c, layer + "mlp.up_proj.weight", layer + "mlp.up_proj.weight_scale",
                            {160, 1}, steps(160, 1.0f, 0.01f),
                            [](int64_t r, int64_t) { return size_t(r); }));
  plain.push_back(to_float8(c, layer + "mlp.gate_proj.weight", layer + "mlp.gate_proj.weight_scale",
                            {}, {0.25f}, [](int64_t, int64_t) { return size_t{0}; }));
  c.entries.push_back({layer + "mlp.gate_proj.input_scale", "F32", {}, std::vector<std::byte>(4)});
  const GgufImage float8 = converted(c);
  Checkpoint same("llama");
  for (const Entry& e : plain) same.entry(e.name) = e;
  expect_same_tensors(converted(same), float8);
}

/// As many scales of blocks as there are rows: they are of blocks all the same.
TEST_F(Convert, Float8BlocksAsManyAsRows) {
  Checkpoint c("llama");
  c.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {64, 2}}};
  const std::string name = "model.layers.0.self_attn.q_proj.weight";  // [128, 128]
  const Entry plain = to_float8(c, name, name + "_scale_inv", {2, 64}, steps(128, 0.5f, 0.03f),
                                [](int64_t r, int64_t k) { return size_t(r / 64 * 64 + k / 2); });
  Checkpoint same("llama");
  same.entry(name) = plain;
  expect_same_tensors(converted(same), converted(c));
}

/// Scales of a shape or a type that cannot be read are refused before anything is.
TEST_F(Convert, Float8ScalesThatAreNone) {
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  const std::string scale = name + "_scale_inv";
  const auto with = [&](const std::vector<int64_t>& shape, const std::string& dtype) {
    return refusal("llama", [&](Checkpoint& c) {
      c.config["quantization_config"] = {{"weight_block_size", {48, 64}}};
      to_float8(c, name, scale, {3, 2}, steps(6, 0.5f, 0.3f),
                [](int64_t, int64_t) { return size_t{0}; });
      Entry& e = c.entry(scale);
      e.shape = shape;
      e.dtype = dtype;
      if (dtype == "F8_E4M3" || dtype == "U8") e.bytes.resize(e.bytes.size() / 4);
      if (dtype == "F64" || dtype == "I64") e.bytes.resize(e.bytes.size() * 2);
    });
  };
  const std::string where = "/model.safetensors: tensor '" + scale + "': ";
  const std::string misfit = "its shape fits neither the weight nor blocks of weight_block_size";
  EXPECT_EQ(with({2, 3}, "F32"), where + misfit);
  EXPECT_EQ(with({6}, "F32"), where + misfit);
  EXPECT_EQ(with({3, 2, 1}, "F32"), where + misfit);
  for (const std::string dtype : {"I32", "U8", "F64", "I64", "F8_E4M3"}) {
    EXPECT_EQ(with({3, 2}, dtype),
              where + "scales of type " + dtype + " (known are F32, F16 and BF16)");
  }
}

/// All experts of a layer in two tensors, as transformers 5 holds them.
TEST_F(Convert, FusedExperts) {
  Checkpoint c("qwen3-moe");
  for (int il = 0; il < 2; ++il) {
    const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", il);
    Entry gate_up{prefix + "gate_up_proj", "BF16", {8, 96, 128}, {}};
    Entry down{prefix + "down_proj", "BF16", {8, 128, 48}, {}};
    for (int e = 0; e < 8; ++e) {
      for (const auto& [part, all] :
           {std::pair("gate_proj", &gate_up), {"up_proj", &gate_up}, {"down_proj", &down}}) {
        const std::string name = fmt::format("{}{}.{}.weight", prefix, e, part);
        const auto& bytes = c.entry(name).bytes;
        all->bytes.insert(all->bytes.end(), bytes.begin(), bytes.end());
        c.erase(name);
      }
    }
    c.entries.push_back(std::move(gate_up));
    c.entries.push_back(std::move(down));
  }
  expect_same_tensors(golden("qwen3-moe"), converted(c));
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
