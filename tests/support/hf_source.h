#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/base/result.h"
#include "tests/support/gguf_image.h"
#include "tests/support/safetensors.h"

/// Inside of hf_to_gguf: a folder being converted, and what each architecture says about it.
namespace infer::test::hf {

using Json = nlohmann::json;

/// What happens to a tensor's values on the way.
enum class Change : uint8_t {
  kNone,
  kPermuteQ,   ///< rows of each query head from rotate-halves order to adjacent pairs
  kPermuteK,   ///< the same for each KV head
  kAddOne,     ///< gemma's norms multiply by 1 + w
  kTranspose,  ///< GPT-2 stores [k, n]
  kSplitQkv,   ///< rows [n_head][q, k, v][head_dim] -> [q, k, v][n_head][head_dim]
  kFlatten,    ///< [1, k] -> [k]
};

struct Target {
  std::string name;
  Change change = Change::kNone;
  int64_t expert = -1;  ///< >= 0: slice of a tensor that holds one matrix an expert
};

struct NamePair {
  std::string_view hf;
  std::string_view gguf;  ///< empty: not written
  Change change = Change::kNone;
};

struct Source {
  std::filesystem::path folder;
  Json config;
  SafeTensors weights;
  std::string arch;  ///< general.architecture

  std::string config_path() const { return (folder / "config.json").string(); }
  std::string key(std::string_view name) const { return arch + "." + std::string(name); }
  template <class T>
  static T or_default(const Json& object, std::string_view name, T fallback) {
    const auto it = object.find(std::string(name));
    return it != object.end() && it->is_number() ? it->template get<T>() : fallback;
  }
  /// config[name], or `fallback` where the config leaves it out or says null.
  int64_t get(std::string_view name, int64_t fallback) const {
    return or_default<int64_t>(config, name, fallback);
  }
  double get(std::string_view name, double fallback) const {
    return or_default<double>(config, name, fallback);
  }
  /// The first of several spellings that the config has; 0 if none.
  int64_t first(std::initializer_list<std::string_view> names) const {
    for (const std::string_view name : names) {
      if (const int64_t v = get(name, int64_t{0}); v != 0) return v;
    }
    return 0;
  }
  int64_t n_embd() const { return first({"hidden_size", "n_embd", "d_model"}); }
  int64_t n_head() const { return first({"num_attention_heads", "n_head", "n_heads"}); }
  int64_t n_kv_head() const { return get("num_key_value_heads", n_head()); }
  int64_t head_dim() const { return get("head_dim", n_head() > 0 ? n_embd() / n_head() : 0); }
};

inline GgufValue u32(int64_t v) { return static_cast<uint32_t>(v); }
inline GgufValue f32(double v) { return static_cast<float>(v); }

/// Sizes that every transformer decoder has; eps_key is the key of the norm's epsilon.
void write_common_keys(const Source& src, std::string_view eps_key, GgufImage& out);
/// transformers 5 writes `rope_parameters`; older configs `rope_theta` and `rope_scaling`.
Json rope_parameters(const Source& src);
Result<void> write_rope_keys(const Source& src, const Json& rope, GgufImage& out);

struct HfArch {
  std::string_view hf_name;  ///< config.json: architectures[0]
  std::string_view gguf_name;
  std::string_view layers;          ///< "model.layers."
  std::span<const NamePair> outer;  ///< tensors outside of layers, whole names
  std::span<const NamePair> inner;  ///< tensors of a layer, after "<layers>N."
  Result<void> (*write_keys)(const Source& src, GgufImage& out);
  /// Tensors of experts: "<experts>E.<suffix>" inside a layer.
  std::string_view experts = {};
  std::span<const NamePair> expert_tensors = {};
};

std::span<const HfArch> archs();

}  // namespace infer::test::hf
