#include "core/model/archs/hf_keys.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace infer::model::hf {

Result<Sizes> read_sizes(const HfConfig& c, const SizeDefaults& defaults) {
  Sizes s;
  INFER_ASSIGN(s.n_layer, c.integer({"num_hidden_layers", "n_layer", "n_layers", "num_layers"}));
  INFER_ASSIGN(s.n_embd, c.integer({"hidden_size", "n_embd", "d_model", "n_embed"}));
  INFER_ASSIGN(s.n_head, c.integer({"num_attention_heads", "n_head", "n_heads"}, defaults.n_head));
  if (s.n_head == 0) return c.unsupported("num_attention_heads", "a model needs heads");
  INFER_ASSIGN(s.n_kv_head, c.integer({"num_key_value_heads", "n_head_kv"},
                                      defaults.n_kv_head > 0 ? defaults.n_kv_head : s.n_head));
  INFER_ASSIGN(s.n_ctx, c.integer({"max_position_embeddings", "n_positions", "n_ctx", "max_seq_len",
                                   "seq_length"},
                                  defaults.n_ctx));
  if (s.n_ctx == 0) return c.unsupported("max_position_embeddings", "a model needs a context");
  INFER_ASSIGN(s.n_ff, c.integer({"intermediate_size", "n_inner"}, 4 * s.n_embd));
  s.head_dim_is_given = c.has("head_dim") || defaults.head_dim > 0;
  const int64_t usual = defaults.head_dim > 0 ? defaults.head_dim : s.n_embd / s.n_head;
  INFER_ASSIGN(s.head_dim, c.integer({"head_dim"}, usual));
  return s;
}

Result<Rope> read_rope(const HfConfig& c, double default_base, double default_partial) {
  INFER_ASSIGN(HfConfig scaling,
               c.object(c.has("rope_parameters") ? "rope_parameters" : "rope_scaling"));
  INFER_ASSIGN(double local_base, c.number({"rope_local_base_freq"}, 0.0));
  if (scaling.has("sliding_attention")) {
    INFER_ASSIGN(const HfConfig local, scaling.object("sliding_attention"));
    INFER_ASSIGN(local_base, local.number({"rope_theta"}, local_base));
    INFER_TRY(expect_text(local, "rope_type", {"default"}));
  }
  if (scaling.has("full_attention")) {
    INFER_ASSIGN(scaling, scaling.object("full_attention"));
  }
  Rope rope{.scaling = scaling, .type = {}, .local_base = local_base};
  INFER_ASSIGN(rope.type, scaling.text({"rope_type", "type"}, "default"));
  INFER_ASSIGN(const double base, c.number({"rope_theta", "rotary_emb_base"}, default_base));
  INFER_ASSIGN(rope.base, scaling.number({"rope_theta"}, base));
  INFER_ASSIGN(const double partial,
               c.number({"partial_rotary_factor", "rotary_pct"}, default_partial));
  INFER_ASSIGN(rope.partial, scaling.number({"partial_rotary_factor"}, partial));
  if (!(rope.partial > 0.0 && rope.partial <= 1.0))
    return c.unsupported("partial_rotary_factor", "must be in (0, 1]");
  INFER_ASSIGN(const int64_t n_ctx,
               c.integer({"original_max_position_embeddings", "max_position_embeddings"}, 0));
  INFER_ASSIGN(rope.n_ctx_orig, scaling.integer({"original_max_position_embeddings"}, n_ctx));
  return rope;
}

namespace {

Result<void> write_yarn(const Rope& rope, double factor, HfKeys& out) {
  const HfConfig& c = rope.scaling;
  for (const std::string_view name : {"mscale", "mscale_all_dim"})
    INFER_TRY(expect_missing(c, name, "not known for this architecture"));
  INFER_TRY(expect_flag(c, "truncate", true, "only whole dimensions are known"));
  out.u32("rope.scaling.original_context_length", rope.n_ctx_orig);
  if (c.has("extrapolation_factor")) {
    INFER_ASSIGN(const double v, c.number({"extrapolation_factor"}));
    out.f32("rope.scaling.yarn_ext_factor", v);
  }
  // Readers multiply 1 + 0.1 ln(factor) by this key; the configuration has the product.
  // (llama.cpp's converter writes the product under yarn_attn_factor, which llama.cpp then
  // ignores.)
  if (c.has("attention_factor") && factor > 1.0) {
    INFER_ASSIGN(const double v, c.number({"attention_factor"}));
    out.f32("rope.scaling.attn_factor", v / (1.0 + 0.1 * std::log(factor)));
  }
  if (c.has("beta_fast")) {
    INFER_ASSIGN(const double v, c.number({"beta_fast"}));
    out.f32("rope.scaling.yarn_beta_fast", v);
  }
  if (c.has("beta_slow")) {
    INFER_ASSIGN(const double v, c.number({"beta_slow"}));
    out.f32("rope.scaling.yarn_beta_slow", v);
  }
  return {};
}

}  // namespace

Result<void> write_scaling(const Rope& rope, HfKeys& out) {
  if (rope.type == "default") return {};
  if (rope.type != "linear" && rope.type != "yarn") {
    return rope.scaling.unsupported(rope.scaling.has("rope_type") ? "rope_type" : "type",
                                    "not known for this architecture");
  }
  INFER_ASSIGN(const double factor, rope.scaling.number({"factor"}));
  if (!(factor >= 1.0)) return rope.scaling.unsupported("factor", "must be 1 or more");
  out.text("rope.scaling.type", rope.type).f32("rope.scaling.factor", factor);
  return rope.type == "yarn" ? write_yarn(rope, factor, out) : Result<void>();
}

Result<void> write_base(const HfConfig& c, const Sizes& s, const Rope& rope, double eps,
                        HfKeys& out) {
  out.u32("block_count", s.n_layer)
      .u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("feed_forward_length", s.n_ff)
      .u32("attention.head_count", s.n_head)
      .u32("attention.head_count_kv", s.n_kv_head);
  INFER_TRY(write_scaling(rope, out));
  out.f32("rope.freq_base", rope.base);
  if (rope.local_base > 0.0) out.f32("rope.freq_base_swa", rope.local_base);
  out.f32("attention.layer_norm_rms_epsilon", eps);
  INFER_ASSIGN(const int64_t n_expert, c.integer({"num_local_experts", "num_experts"}, 0));
  if (n_expert > 0) {
    INFER_ASSIGN(const int64_t n_used, c.integer({"num_experts_per_tok"}));
    out.u32("expert_count", n_expert).u32("expert_used_count", n_used);
  }
  if (s.head_dim_is_given)
    out.u32("attention.key_length", s.head_dim).u32("attention.value_length", s.head_dim);
  return {};
}

Result<void> expect_text(const HfConfig& c, std::string_view name,
                         std::initializer_list<std::string_view> known) {
  if (!c.has(name)) return {};
  INFER_ASSIGN(const std::string value, c.text({name}, ""));
  if (std::find(known.begin(), known.end(), value) != known.end()) return {};
  return c.unsupported(name, fmt::format("known is {}", fmt::join(known, ", ")));
}

Result<void> expect_flag(const HfConfig& c, std::string_view name, bool known,
                         std::string_view why) {
  INFER_ASSIGN(const bool value, c.flag(name, known));
  return value == known ? Result<void>() : c.unsupported(name, why);
}

Result<void> expect_missing(const HfConfig& c, std::string_view name, std::string_view why) {
  return c.has(name) ? Result<void>(c.unsupported(name, why)) : Result<void>();
}

Result<void> write_qwen(const HfConfig& c, const SizeDefaults& defaults, HfKeys& out) {
  INFER_TRY(expect_text(c, "hidden_act", {"silu"}));
  INFER_ASSIGN(const Sizes s, read_sizes(c, defaults));
  INFER_ASSIGN(const Rope rope, read_rope(c));
  INFER_ASSIGN(const double eps, c.number({"rms_norm_eps"}));
  constexpr std::string_view kWindow = "sliding windows of Qwen have no form in GGUF";
  INFER_ASSIGN(const auto layer_types, c.texts("layer_types"));
  if (std::count(layer_types.begin(), layer_types.end(), "sliding_attention") > 0)
    return c.unsupported("layer_types", kWindow);
  INFER_ASSIGN(const bool window, c.flag("use_sliding_window", false));
  INFER_ASSIGN(const int64_t first, c.integer({"max_window_layers"}, 0));
  if (window && layer_types.empty() && c.has("sliding_window") && first < s.n_layer)
    return c.unsupported("use_sliding_window", kWindow);
  return write_base(c, s, rope, eps, out);
}

Result<void> write_qwen_experts(const HfConfig& c, bool weights_norm, HfKeys& out) {
  INFER_ASSIGN(const bool norm, c.flag("norm_topk_prob", false));
  if (norm != weights_norm) {
    return c.unsupported("norm_topk_prob",
                         weights_norm ? "this architecture normalises the weights of experts"
                                      : "this architecture leaves the weights of experts alone");
  }
  INFER_ASSIGN(const int64_t step, c.integer({"decoder_sparse_step"}, 1));
  if (step != 1) return c.unsupported("decoder_sparse_step", "all layers must have experts");
  INFER_ASSIGN(const int64_t n_ff_exp, c.integer({"moe_intermediate_size"}));
  out.u32("expert_feed_forward_length", n_ff_exp);
  if (c.has("shared_expert_intermediate_size")) {
    INFER_ASSIGN(const int64_t n_ff_shexp, c.integer({"shared_expert_intermediate_size"}));
    out.u32("expert_shared_feed_forward_length", n_ff_shexp);
  }
  return {};
}

Result<void> check_gemma_scale(const HfConfig& c, const Sizes& s, int64_t n_layer_27b) {
  INFER_ASSIGN(const int64_t scalar, c.integer({"query_pre_attn_scalar"}, 256));
  const int64_t known = s.n_layer == n_layer_27b ? s.n_embd / s.n_head : s.head_dim;
  if (scalar == known) return {};
  return c.unsupported("query_pre_attn_scalar",
                       fmt::format("GGUF has no key for it, readers take {}", known));
}

Result<void> check_layer_types(const HfConfig& c, int64_t period) {
  INFER_ASSIGN(const auto types, c.texts("layer_types"));
  for (size_t il = 0; il < types.size(); ++il) {
    const bool full = (static_cast<int64_t>(il) + 1) % period == 0;
    if (types[il] != (full ? "full_attention" : "sliding_attention")) {
      return c.unsupported("layer_types", fmt::format("layer {} is '{}'; full attention is known "
                                                      "in every layer number {} only",
                                                      il, types[il], period));
    }
  }
  return {};
}

}  // namespace infer::model::hf
