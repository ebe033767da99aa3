#include "tests/support/hf_to_gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "tests/support/encode.h"
#include "tests/support/hf_json.h"
#include "tests/support/hf_tokenizer.h"
#include "tests/support/safetensors.h"

namespace infer::test {
namespace {

using Json = nlohmann::json;

/// What happens to a tensor's values on the way.
enum class Change : uint8_t {
  kNone,
  kPermuteQ,  ///< rows of each query head from rotate-halves order to adjacent pairs
  kPermuteK,  ///< the same for each KV head
  kAddOne,    ///< gemma's norms multiply by 1 + w
};

struct Target {
  std::string name;
  Change change = Change::kNone;
};

/// A folder being converted.
struct Source {
  std::filesystem::path folder;
  Json config;
  SafeTensors weights;
  std::string arch;  ///< general.architecture

  std::string key(std::string_view name) const { return arch + "." + std::string(name); }
  /// config[name], or `fallback` where the config leaves it out or says null.
  int64_t get(std::string_view name, int64_t fallback) const {
    return or_default<int64_t>(config, name, fallback);
  }
  double get(std::string_view name, double fallback) const {
    return or_default<double>(config, name, fallback);
  }

  template <class T>
  static T or_default(const Json& object, std::string_view name, T fallback) {
    const auto it = object.find(std::string(name));
    return it != object.end() && it->is_number() ? it->template get<T>() : fallback;
  }
  int64_t n_head() const { return get("num_attention_heads", int64_t{0}); }
  int64_t n_kv_head() const { return get("num_key_value_heads", n_head()); }
  int64_t head_dim() const {
    return get("head_dim", n_head() > 0 ? get("hidden_size", int64_t{0}) / n_head() : 0);
  }
};

using MapTensor = std::optional<Target> (*)(std::string_view suffix);

struct HfArch {
  std::string_view hf_name;  ///< config.json: architectures[0]
  std::string_view gguf_name;
  Result<void> (*write_keys)(const Source& src, GgufImage& out);
  /// GGUF name of "model.layers.N.<suffix>" after "blk.N."; nullopt for a tensor this architecture
  /// does not have.
  MapTensor map_layer_tensor;
};

GgufValue u32(int64_t v) { return static_cast<uint32_t>(v); }
GgufValue f32(double v) { return static_cast<float>(v); }

/// Keys that every transformer decoder has.
void write_common_keys(const Source& src, GgufImage& out) {
  out.set(src.key("block_count"), u32(src.get("num_hidden_layers", int64_t{0})));
  out.set(src.key("context_length"), u32(src.get("max_position_embeddings", int64_t{0})));
  out.set(src.key("embedding_length"), u32(src.get("hidden_size", int64_t{0})));
  out.set(src.key("feed_forward_length"), u32(src.get("intermediate_size", int64_t{0})));
  out.set(src.key("attention.head_count"), u32(src.n_head()));
  out.set(src.key("attention.head_count_kv"), u32(src.n_kv_head()));
  out.set(src.key("attention.layer_norm_rms_epsilon"), f32(src.get("rms_norm_eps", 1e-6)));
  out.set(src.key("attention.key_length"), u32(src.head_dim()));
  out.set(src.key("attention.value_length"), u32(src.head_dim()));
}

/// llama3's scaling as llama.cpp stores it: one divisor of the frequency for each pair.
/// (llama.cpp's converter looks for original_max_position_embeddings at the top level of the config
/// and else takes 8192; the value that counts stands beside the factors, and that is what
/// transformers uses.)
Result<void> write_llama3_factors(const Source& src, const Json& rope, GgufImage& out) {
  const double base = Source::or_default(rope, "rope_theta", 10000.0);
  const double factor = Source::or_default(rope, "factor", 8.0);
  const double low = Source::or_default(rope, "low_freq_factor", 1.0);
  const double high = Source::or_default(rope, "high_freq_factor", 4.0);
  const double n_old = Source::or_default(rope, "original_max_position_embeddings", 8192.0);
  std::vector<float> factors;
  for (int64_t i = 0; i < src.head_dim() / 2; ++i) {
    const double freq =
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(src.head_dim()));
    const double wave = 2.0 * std::numbers::pi / freq;
    double f = 1.0;
    if (wave > n_old / low) {
      f = factor;
    } else if (wave >= n_old / high) {
      const double smooth = (n_old / wave - low) / (high - low);
      f = 1.0 / ((1.0 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(f));
  }
  out.tensors.push_back(
      {"rope_freqs.weight", DType::kF32, {src.head_dim() / 2}, encode(DType::kF32, factors)});
  return {};
}

/// transformers 5 writes `rope_parameters`; older configs `rope_theta` and `rope_scaling`.
Result<void> write_rope_keys(const Source& src, const Json& rope, GgufImage& out) {
  out.set(src.key("rope.freq_base"), f32(Source::or_default(rope, "rope_theta", 10000.0)));
  const std::string type = rope.value("rope_type", rope.value("type", "default"));
  if (type == "default") return {};
  if (type == "llama3") return write_llama3_factors(src, rope, out);
  if (type != "linear" && type != "yarn") {
    return make_error(ErrorCode::kUnsupported, "{}: rope_type '{}'",
                      (src.folder / "config.json").string(), type);
  }
  out.set(src.key("rope.scaling.type"), type);
  out.set(src.key("rope.scaling.factor"), f32(Source::or_default(rope, "factor", 1.0)));
  if (type == "linear") return {};
  const int64_t n_old = Source::or_default<int64_t>(rope, "original_max_position_embeddings", 0);
  out.set(src.key("rope.scaling.original_context_length"), u32(n_old));
  // llama.cpp multiplies its own 1 + 0.1 ln(factor) by attn_factor; without the key that product is
  // transformers' default.
  if (rope.contains("attention_factor") && rope["attention_factor"].is_number()) {
    out.set(src.key("rope.scaling.yarn_attn_factor"), f32(rope["attention_factor"].get<double>()));
  }
  for (const char* name : {"beta_fast", "beta_slow"}) {
    if (rope.contains(name) && rope[name].is_number()) {
      out.set(src.key(std::string("rope.scaling.yarn_") + name), f32(rope[name].get<double>()));
    }
  }
  return {};
}

Json rope_parameters(const Source& src) {
  if (src.config.contains("rope_parameters") && src.config["rope_parameters"].is_object())
    return src.config["rope_parameters"];
  Json rope = Json::object();
  if (src.config.contains("rope_scaling") && src.config["rope_scaling"].is_object())
    rope = src.config["rope_scaling"];
  rope["rope_theta"] = src.get("rope_theta", 10000.0);
  return rope;
}

struct NamePair {
  std::string_view hf;
  std::string_view gguf;
  Change change = Change::kNone;
};

std::optional<Target> look_up(std::span<const NamePair> table, std::string_view suffix) {
  for (const NamePair& row : table) {
    if (row.hf == suffix) return Target{std::string(row.gguf), row.change};
  }
  return std::nullopt;
}

// ---- llama, mistral

Result<void> write_llama_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, out);
  out.set(src.key("vocab_size"), u32(src.get("vocab_size", int64_t{0})));
  out.set(src.key("rope.dimension_count"), u32(src.head_dim()));
  if (const int64_t window = src.get("sliding_window", int64_t{0}); window > 0) {
    out.set(src.key("attention.sliding_window"), u32(window));
  }
  return write_rope_keys(src, rope_parameters(src), out);
}

std::optional<Target> map_llama_tensor(std::string_view suffix) {
  static constexpr std::array<NamePair, 9> kTable{{
      {"input_layernorm.weight", "attn_norm.weight"},
      {"self_attn.q_proj.weight", "attn_q.weight", Change::kPermuteQ},
      {"self_attn.k_proj.weight", "attn_k.weight", Change::kPermuteK},
      {"self_attn.v_proj.weight", "attn_v.weight"},
      {"self_attn.o_proj.weight", "attn_output.weight"},
      {"post_attention_layernorm.weight", "ffn_norm.weight"},
      {"mlp.gate_proj.weight", "ffn_gate.weight"},
      {"mlp.up_proj.weight", "ffn_up.weight"},
      {"mlp.down_proj.weight", "ffn_down.weight"},
  }};
  return look_up(kTable, suffix);
}

// ---- gemma3

/// The window pattern (every sixth layer full) and the local rope base (10000) are not written:
/// readers know them. The query scale is head_dim^-1/2 for all sizes but 27B, where
/// query_pre_attn_scalar differs and llama.cpp knows the model by its number of layers; a config
/// that differs elsewhere is refused.
Result<void> write_gemma3_keys(const Source& src, GgufImage& out) {
  const std::string path = (src.folder / "config.json").string();
  write_common_keys(src, out);
  out.set(src.key("attention.sliding_window"), u32(src.get("sliding_window", int64_t{512})));
  const int64_t scalar = src.get("query_pre_attn_scalar", int64_t{256});
  if (scalar != src.head_dim()) {
    return make_error(ErrorCode::kUnsupported, "{}: query_pre_attn_scalar = {}, head_dim = {}",
                      path, scalar, src.head_dim());
  }
  const Json layer_types = src.config.value("layer_types", Json::array());
  for (size_t il = 0; il < layer_types.size(); ++il) {
    if ((layer_types[il] == "sliding_attention") != ((il + 1) % 6 != 0)) {
      return make_error(ErrorCode::kUnsupported, "{}: layer_types[{}] = {}", path, il,
                        layer_types[il].dump());
    }
  }
  const Json rope = rope_parameters(src);
  const double local = rope.contains("sliding_attention")
                           ? Source::or_default(rope["sliding_attention"], "rope_theta", 10000.0)
                           : src.get("rope_local_base_freq", 10000.0);
  if (local != 10000.0)
    return make_error(ErrorCode::kUnsupported, "{}: local rope base {}", path, local);
  return write_rope_keys(src, rope.contains("full_attention") ? rope["full_attention"] : rope, out);
}

std::optional<Target> map_gemma3_tensor(std::string_view suffix) {
  static constexpr std::array<NamePair, 13> kTable{{
      {"input_layernorm.weight", "attn_norm.weight", Change::kAddOne},
      {"self_attn.q_proj.weight", "attn_q.weight"},
      {"self_attn.k_proj.weight", "attn_k.weight"},
      {"self_attn.v_proj.weight", "attn_v.weight"},
      {"self_attn.o_proj.weight", "attn_output.weight"},
      {"self_attn.q_norm.weight", "attn_q_norm.weight", Change::kAddOne},
      {"self_attn.k_norm.weight", "attn_k_norm.weight", Change::kAddOne},
      {"post_attention_layernorm.weight", "post_attention_norm.weight", Change::kAddOne},
      {"pre_feedforward_layernorm.weight", "ffn_norm.weight", Change::kAddOne},
      {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", Change::kAddOne},
      {"mlp.gate_proj.weight", "ffn_gate.weight"},
      {"mlp.up_proj.weight", "ffn_up.weight"},
      {"mlp.down_proj.weight", "ffn_down.weight"},
  }};
  return look_up(kTable, suffix);
}

constexpr std::array<HfArch, 3> kArchs{{
    {"LlamaForCausalLM", "llama", write_llama_keys, map_llama_tensor},
    {"MistralForCausalLM", "llama", write_llama_keys, map_llama_tensor},
    {"Gemma3ForCausalLM", "gemma3", write_gemma3_keys, map_gemma3_tensor},
}};

/// The tensors outside of layers have the same names in these architectures.
std::optional<Target> map_tensor(const HfArch& arch, std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (name == "model.embed_tokens.weight") return Target{"token_embd.weight"};
  if (name == "lm_head.weight") return Target{"output.weight"};
  if (name == "model.norm.weight") {
    return Target{"output_norm.weight",
                  arch.gguf_name == "gemma3" ? Change::kAddOne : Change::kNone};
  }
  if (!name.starts_with(kLayers)) return std::nullopt;
  const std::string_view rest = name.substr(kLayers.size());
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  auto target = arch.map_layer_tensor(rest.substr(dot + 1));
  if (target) target->name = "blk." + std::string(rest.substr(0, dot)) + "." + target->name;
  return target;
}

/// Row i of the first half of a head goes to 2i, row i of the second half to 2i + 1.
std::vector<float> permute_heads(const std::vector<float>& x, int64_t n_head, int64_t n_row) {
  const int64_t k = static_cast<int64_t>(x.size()) / n_row;
  const int64_t head_rows = n_row / n_head;
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < n_row; ++r) {
    const int64_t in_head = r % head_rows;
    const int64_t to = r - in_head + in_head % (head_rows / 2) * 2 + in_head / (head_rows / 2);
    std::copy_n(x.begin() + r * k, k, out.begin() + to * k);
  }
  return out;
}

Result<GgufTensor> convert_tensor(const Source& src, const SafeTensor& t, const Target& target,
                                  DType type) {
  INFER_ASSIGN(std::vector<float> x, src.weights.floats(t.name));
  const int64_t n_head = target.change == Change::kPermuteQ ? src.n_head() : src.n_kv_head();
  if (target.change == Change::kAddOne) {
    for (float& v : x) v += 1.0f;
  } else if (target.change != Change::kNone) {
    if (t.shape.size() != 2 || n_head <= 0 || t.shape[0] % (2 * n_head) != 0) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has no rows for {} heads",
                        src.folder.string(), t.name, n_head);
    }
    x = permute_heads(x, n_head, t.shape[0]);
  }
  GgufTensor out{target.name, DType::kF32, {t.shape.rbegin(), t.shape.rend()}, {}};
  if (t.shape.size() > 1) out.type = row_bytes(type, t.shape.back()) ? type : DType::kF16;
  out.bytes = encode(out.type, x);
  return out;
}

/// llama.cpp's numbers for general.file_type.
uint32_t file_type_of(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ4_K:
      return 14;
    case DType::kQ5_K:
      return 16;
    case DType::kQ6_K:
      return 18;
    case DType::kBF16:
      return 32;
    default:
      return 1;
  }
}

void write_special_ids(const Source& src, GgufImage& out) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kIds{
      {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
       {"eos_token_id", "tokenizer.ggml.eos_token_id"},
       {"pad_token_id", "tokenizer.ggml.padding_token_id"}}};
  for (const auto& [hf, key] : kIds) {
    if (const int64_t id = src.get(hf, int64_t{-1}); id >= 0) out.set(key, u32(id));
  }
  if (src.arch == "gemma3") out.set("tokenizer.ggml.add_space_prefix", false);
}

}  // namespace

Result<GgufImage> convert_hf(const std::filesystem::path& folder, const ConvertOptions& options) {
  if (!can_encode(options.type)) {
    return make_error(ErrorCode::kUnsupported, "{}: no encoder for {}", folder.string(),
                      name_of(options.type));
  }
  INFER_ASSIGN(Json config, read_json(folder / "config.json"));
  INFER_ASSIGN(SafeTensors weights, SafeTensors::open(folder / "model.safetensors"));
  const Json names = config.value("architectures", Json::array());
  const std::string hf_name =
      !names.empty() && names[0].is_string() ? names[0].get<std::string>() : "";
  const auto* arch = std::find_if(kArchs.begin(), kArchs.end(),
                                  [&](const HfArch& a) { return a.hf_name == hf_name; });
  if (arch == kArchs.end()) {
    return make_error(ErrorCode::kUnsupported, "{}: architecture '{}'",
                      (folder / "config.json").string(), hf_name);
  }
  const Source src{folder, std::move(config), std::move(weights), std::string(arch->gguf_name)};

  GgufImage out;
  out.set("general.architecture", src.arch);
  out.set("general.type", std::string("model"));
  out.set("general.name", folder.filename().string());
  INFER_TRY(arch->write_keys(src, out));
  out.set("general.file_type", file_type_of(options.type));
  INFER_TRY(convert_tokenizer(folder, src.get("vocab_size", int64_t{0}), out));
  write_special_ids(src, out);
  out.set("general.quantization_version", uint32_t{2});
  for (const SafeTensor& t : src.weights.tensors()) {
    const auto target = map_tensor(*arch, t.name);
    if (!target)
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}'", folder.string(), t.name);
    INFER_ASSIGN(GgufTensor converted, convert_tensor(src, t, *target, options.type));
    out.tensors.push_back(std::move(converted));
  }
  return out;
}

}  // namespace infer::test
