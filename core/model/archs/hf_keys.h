#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/model/hf.h"

/// What the configurations of decoder-only architectures share. Keys and their order are those of
/// llama.cpp's convert_hf_to_gguf.
namespace infer::model::hf {

struct Sizes {
  int64_t n_layer = 0, n_ctx = 0, n_embd = 0, n_ff = 0, n_head = 0, n_kv_head = 0;
  int64_t head_dim = 0;            ///< n_embd / n_head where the configuration has none
  bool head_dim_is_given = false;  ///< the configuration has it
};
/// Values for what a configuration may leave out; 0: it must not.
struct SizeDefaults {
  int64_t n_ctx = 0, n_head = 0, n_kv_head = 0, head_dim = 0;  ///< n_kv_head 0: as n_head
};
/// n_ff is 4 * n_embd where the configuration has none.
Result<Sizes> read_sizes(const HfConfig& c, const SizeDefaults& defaults = {});

/// transformers 5 writes `rope_parameters` (with one object a kind of layer where these differ),
/// older versions `rope_theta` and `rope_scaling`.
struct Rope {
  HfConfig scaling;
  std::string type;  ///< "default": none
  double base = 10000.0;
  double local_base = 0.0;  ///< of layers with a sliding window; 0: not given
  double partial = 1.0;     ///< rotated part of a head
  int64_t n_ctx_orig = 0;   ///< context of the first training; 0: not given
};
Result<Rope> read_rope(const HfConfig& c, double default_base = 10000.0,
                       double default_partial = 1.0);
/// rope.scaling.* of none, linear and yarn. Errors: kUnsupported for another type.
Result<void> write_scaling(const Rope& rope, HfKeys& out);

/// All that llama.cpp's converter writes for every decoder, with RMS norms: sizes, rope, epsilon,
/// experts, head_dim.
Result<void> write_base(const HfConfig& c, const Sizes& s, const Rope& rope, double eps,
                        HfKeys& out);

/// The key must be missing or have one of these values.
Result<void> expect_text(const HfConfig& c, std::string_view name,
                         std::initializer_list<std::string_view> known);
/// The key must be missing or have this value.
Result<void> expect_flag(const HfConfig& c, std::string_view name, bool known,
                         std::string_view why);
/// The key must be missing or null.
Result<void> expect_missing(const HfConfig& c, std::string_view name, std::string_view why);

inline constexpr std::array<std::string_view, 1> kModelPrefix{"model."};
inline constexpr std::array<std::string_view, 1> kTransformerPrefix{"transformer."};

inline constexpr std::array<HfName, 4> kOuter{{
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"rotary_emb.inv_freq", ""},
}};
/// Qwen 2 and 3, with and without experts.
inline constexpr std::array<HfName, 23> kQwenInner{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", HfChange::kFlatten},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
    // All experts in one tensor, as transformers 5 holds them.
    {"mlp.experts.gate_up_proj", "ffn_gate_exps.weight", HfChange::kFirstHalf},
    {"mlp.experts.gate_up_proj", "ffn_up_exps.weight", HfChange::kSecondHalf},
    {"mlp.experts.down_proj", "ffn_down_exps.weight"},
}};
inline constexpr std::array<HfName, 3> kQwenExperts{{
    {"gate_proj.weight", "ffn_gate_exps.weight"},
    {"up_proj.weight", "ffn_up_exps.weight"},
    {"down_proj.weight", "ffn_down_exps.weight"},
}};
/// Keys of Qwen 2 and 3. Errors: kUnsupported for layers with a sliding window, which GGUF's qwen
/// architectures do not know.
Result<void> write_qwen(const HfConfig& c, const SizeDefaults& defaults, HfKeys& out);
/// Widths of the experts, and whether the configuration wants what the architecture computes.
Result<void> write_qwen_experts(const HfConfig& c, bool weights_norm, HfKeys& out);

/// Gemma 2 and 3: norms multiply by 1 + w.
inline constexpr std::array<HfName, 4> kGemmaOuter{{
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight", HfChange::kAddOne},
    {"lm_head.weight", "output.weight"},
    {"rotary_emb.inv_freq", ""},
}};
inline constexpr std::array<HfName, 14> kGemmaInner{{
    {"input_layernorm.weight", "attn_norm.weight", HfChange::kAddOne},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", HfChange::kAddOne},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", HfChange::kAddOne},
    {"self_attn.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", HfChange::kAddOne},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", HfChange::kAddOne},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", HfChange::kAddOne},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
}};
/// Errors unless the attention scale is what readers of the GGUF compute (it has no key): that of
/// head_dim, or of n_embd / n_head in the model with `n_layer_27b` layers.
Result<void> check_gemma_scale(const HfConfig& c, const Sizes& s, int64_t n_layer_27b);
/// Every `period`-th layer has full attention, the others have the window.
Result<void> check_layer_types(const HfConfig& c, int64_t period);

}  // namespace infer::model::hf
