#include <cmath>
#include <numbers>
#include <vector>

#include "core/base/error.h"
#include "tests/support/encode.h"
#include "tests/support/hf_source.h"

namespace infer::test::hf {

void write_common_keys(const Source& src, std::string_view eps_key, GgufImage& out) {
  const int64_t n_ctx = src.first({"max_position_embeddings", "n_positions", "max_seq_len"});
  const int64_t n_ff = src.first({"intermediate_size", "n_inner"});
  const double eps =
      src.get("rms_norm_eps", src.get("layer_norm_eps", src.get("layer_norm_epsilon", 1e-6)));
  out.set(src.key("block_count"), u32(src.first({"num_hidden_layers", "n_layer", "n_layers"})));
  // BLOOM's config has no limit; its converter writes the width.
  out.set(src.key("context_length"), u32(n_ctx > 0 ? n_ctx : src.n_embd()));
  out.set(src.key("embedding_length"), u32(src.n_embd()));
  out.set(src.key("feed_forward_length"), u32(n_ff > 0 ? n_ff : 4 * src.n_embd()));
  out.set(src.key("attention.head_count"), u32(src.n_head()));
  out.set(src.key("attention.head_count_kv"), u32(src.n_kv_head()));
  out.set(src.key(eps_key), f32(eps));
}

namespace {

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

}  // namespace

Json rope_parameters(const Source& src) {
  if (src.config.contains("rope_parameters") && src.config["rope_parameters"].is_object())
    return src.config["rope_parameters"];
  Json rope = Json::object();
  if (src.config.contains("rope_scaling") && src.config["rope_scaling"].is_object())
    rope = src.config["rope_scaling"];
  rope["rope_theta"] = src.get("rope_theta", 10000.0);
  return rope;
}

Result<void> write_rope_keys(const Source& src, const Json& rope, GgufImage& out) {
  out.set(src.key("rope.freq_base"), f32(Source::or_default(rope, "rope_theta", 10000.0)));
  const std::string type = rope.value("rope_type", rope.value("type", "default"));
  if (type == "default") return {};
  if (type == "llama3") return write_llama3_factors(src, rope, out);
  if (type != "linear" && type != "yarn") {
    return make_error(ErrorCode::kUnsupported, "{}: rope_type '{}'", src.config_path(), type);
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

}  // namespace infer::test::hf
