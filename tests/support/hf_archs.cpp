#include <array>

#include "core/base/error.h"
#include "tests/support/hf_source.h"

/// One row of kArchs an architecture; a function for its keys, a table for its tensors.
namespace infer::test::hf {
namespace {

constexpr std::string_view kRmsEps = "attention.layer_norm_rms_epsilon";
constexpr std::string_view kLayerEps = "attention.layer_norm_epsilon";

constexpr std::array<NamePair, 3> kOuter{{
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
}};

// ---- the Llama family: llama, mistral, mixtral, qwen2, qwen3 and their experts

void write_head_dims(const Source& src, GgufImage& out) {
  out.set(src.key("attention.key_length"), u32(src.head_dim()));
  out.set(src.key("attention.value_length"), u32(src.head_dim()));
}

Result<void> write_qwen_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, kRmsEps, out);
  write_head_dims(src, out);
  const int64_t n_expert = src.first({"num_local_experts", "num_experts"});
  if (n_expert > 0) {
    out.set(src.key("expert_count"), u32(n_expert));
    out.set(src.key("expert_used_count"), u32(src.first({"num_experts_per_tok"})));
  }
  if (const int64_t n = src.first({"moe_intermediate_size"}); n > 0)
    out.set(src.key("expert_feed_forward_length"), u32(n));
  if (const int64_t n = src.first({"shared_expert_intermediate_size"}); n > 0)
    out.set(src.key("expert_shared_feed_forward_length"), u32(n));
  return write_rope_keys(src, rope_parameters(src), out);
}

Result<void> write_llama_keys(const Source& src, GgufImage& out) {
  INFER_TRY(write_qwen_keys(src, out));
  out.set(src.key("vocab_size"), u32(src.get("vocab_size", int64_t{0})));
  out.set(src.key("rope.dimension_count"), u32(src.head_dim()));
  if (const int64_t window = src.get("sliding_window", int64_t{0}); window > 0)
    out.set(src.key("attention.sliding_window"), u32(window));
  return {};
}

constexpr std::array<NamePair, 10> kLlama{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight", Change::kPermuteQ},
    {"self_attn.k_proj.weight", "attn_k.weight", Change::kPermuteK},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight"},
}};

constexpr std::array<NamePair, 3> kMixtralExperts{{
    {"w1.weight", "ffn_gate_exps.weight"},
    {"w2.weight", "ffn_down_exps.weight"},
    {"w3.weight", "ffn_up_exps.weight"},
}};

constexpr std::array<NamePair, 19> kQwen{{
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
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", Change::kFlatten},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
}};

constexpr std::array<NamePair, 3> kQwenExperts{{
    {"gate_proj.weight", "ffn_gate_exps.weight"},
    {"up_proj.weight", "ffn_up_exps.weight"},
    {"down_proj.weight", "ffn_down_exps.weight"},
}};

// ---- gemma2, gemma3

/// The query scale is head_dim^-1/2 for all sizes but 27B, where query_pre_attn_scalar differs and
/// llama.cpp knows the model by its number of layers; a config that differs elsewhere is refused.
Result<void> write_gemma_keys(const Source& src, int64_t full_every, GgufImage& out) {
  write_common_keys(src, kRmsEps, out);
  write_head_dims(src, out);
  out.set(src.key("attention.sliding_window"), u32(src.get("sliding_window", int64_t{512})));
  const int64_t scalar = src.get("query_pre_attn_scalar", int64_t{256});
  if (scalar != src.head_dim()) {
    return make_error(ErrorCode::kUnsupported, "{}: query_pre_attn_scalar = {}, head_dim = {}",
                      src.config_path(), scalar, src.head_dim());
  }
  const Json layer_types = src.config.value("layer_types", Json::array());
  for (size_t il = 0; il < layer_types.size(); ++il) {
    const bool full = (static_cast<int64_t>(il) + 1) % full_every == 0;
    if ((layer_types[il] == "sliding_attention") == full) {
      return make_error(ErrorCode::kUnsupported, "{}: layer_types[{}] = {}", src.config_path(), il,
                        layer_types[il].dump());
    }
  }
  return {};
}

Result<void> write_gemma2_keys(const Source& src, GgufImage& out) {
  INFER_TRY(write_gemma_keys(src, 2, out));
  out.set(src.key("attn_logit_softcapping"), f32(src.get("attn_logit_softcapping", 0.0)));
  out.set(src.key("final_logit_softcapping"), f32(src.get("final_logit_softcapping", 0.0)));
  return write_rope_keys(src, rope_parameters(src), out);
}

/// The window pattern (every sixth layer full) and the local rope base (10000) are not written:
/// readers know them.
Result<void> write_gemma3_keys(const Source& src, GgufImage& out) {
  INFER_TRY(write_gemma_keys(src, 6, out));
  const Json rope = rope_parameters(src);
  const double local = rope.contains("sliding_attention")
                           ? Source::or_default(rope["sliding_attention"], "rope_theta", 10000.0)
                           : src.get("rope_local_base_freq", 10000.0);
  if (local != 10000.0)
    return make_error(ErrorCode::kUnsupported, "{}: local rope base {}", src.config_path(), local);
  return write_rope_keys(src, rope.contains("full_attention") ? rope["full_attention"] : rope, out);
}

constexpr std::array<NamePair, 3> kGemmaOuter{{
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight", Change::kAddOne},
    {"lm_head.weight", "output.weight"},
}};

constexpr std::array<NamePair, 13> kGemma{{
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

// ---- phi3

Result<void> write_phi3_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, kRmsEps, out);
  const Json rope = rope_parameters(src);
  const double part = Source::or_default(rope, "partial_rotary_factor", 1.0);
  out.set(src.key("rope.dimension_count"),
          u32(static_cast<int64_t>(part * static_cast<double>(src.head_dim()))));
  out.set(src.key("rope.scaling.original_context_length"),
          u32(src.get("original_max_position_embeddings", int64_t{0})));
  out.set(src.key("attention.sliding_window"), u32(src.get("sliding_window", int64_t{0})));
  return write_rope_keys(src, rope, out);
}

constexpr std::array<NamePair, 6> kPhi3{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
}};

// ---- layer norms: gpt2, gptneox, bloom, mpt

Result<void> write_layer_norm_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, kLayerEps, out);
  return {};
}

Result<void> write_gptneox_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, kLayerEps, out);
  const Json rope = rope_parameters(src);
  const double part =
      Source::or_default(rope, "partial_rotary_factor", src.get("rotary_pct", 0.25));
  out.set(src.key("rope.dimension_count"),
          u32(static_cast<int64_t>(part * static_cast<double>(src.head_dim()))));
  out.set(src.key("use_parallel_residual"), src.config.value("use_parallel_residual", true));
  return write_rope_keys(src, rope, out);
}

Result<void> write_mpt_keys(const Source& src, GgufImage& out) {
  write_common_keys(src, kLayerEps, out);
  out.set(src.key("feed_forward_length"),
          u32(src.get("expansion_ratio", int64_t{4}) * src.n_embd()));
  const Json attn = src.config.value("attn_config", Json::object());
  const double clip = Source::or_default(attn, "clip_qkv", 0.0);
  if (clip != 0.0) out.set(src.key("attention.clamp_kqv"), f32(clip));
  out.set(src.key("attention.max_alibi_bias"),
          f32(attn.value("alibi", false) ? Source::or_default(attn, "alibi_bias_max", 8.0) : 0.0));
  return {};
}

constexpr std::array<NamePair, 4> kGpt2Outer{{
    {"transformer.wte.weight", "token_embd.weight"},
    {"transformer.wpe.weight", "position_embd.weight"},
    {"transformer.ln_f.weight", "output_norm.weight"},
    {"transformer.ln_f.bias", "output_norm.bias"},
}};
constexpr std::array<NamePair, 12> kGpt2{{
    {"ln_1.weight", "attn_norm.weight"},
    {"ln_1.bias", "attn_norm.bias"},
    {"attn.c_attn.weight", "attn_qkv.weight", Change::kTranspose},
    {"attn.c_attn.bias", "attn_qkv.bias"},
    {"attn.c_proj.weight", "attn_output.weight", Change::kTranspose},
    {"attn.c_proj.bias", "attn_output.bias"},
    {"ln_2.weight", "ffn_norm.weight"},
    {"ln_2.bias", "ffn_norm.bias"},
    {"mlp.c_fc.weight", "ffn_up.weight", Change::kTranspose},
    {"mlp.c_fc.bias", "ffn_up.bias"},
    {"mlp.c_proj.weight", "ffn_down.weight", Change::kTranspose},
    {"mlp.c_proj.bias", "ffn_down.bias"},
}};

constexpr std::array<NamePair, 4> kGptNeoxOuter{{
    {"gpt_neox.embed_in.weight", "token_embd.weight"},
    {"gpt_neox.final_layer_norm.weight", "output_norm.weight"},
    {"gpt_neox.final_layer_norm.bias", "output_norm.bias"},
    {"embed_out.weight", "output.weight"},
}};
constexpr std::array<NamePair, 12> kGptNeox{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"input_layernorm.bias", "attn_norm.bias"},
    {"attention.query_key_value.weight", "attn_qkv.weight", Change::kSplitQkv},
    {"attention.query_key_value.bias", "attn_qkv.bias", Change::kSplitQkv},
    {"attention.dense.weight", "attn_output.weight"},
    {"attention.dense.bias", "attn_output.bias"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"post_attention_layernorm.bias", "ffn_norm.bias"},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight"},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias"},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight"},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias"},
}};

constexpr std::array<NamePair, 5> kBloomOuter{{
    {"transformer.word_embeddings.weight", "token_embd.weight"},
    {"transformer.word_embeddings_layernorm.weight", "token_embd_norm.weight"},
    {"transformer.word_embeddings_layernorm.bias", "token_embd_norm.bias"},
    {"transformer.ln_f.weight", "output_norm.weight"},
    {"transformer.ln_f.bias", "output_norm.bias"},
}};
constexpr std::array<NamePair, 12> kBloom{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"input_layernorm.bias", "attn_norm.bias"},
    {"self_attention.query_key_value.weight", "attn_qkv.weight", Change::kSplitQkv},
    {"self_attention.query_key_value.bias", "attn_qkv.bias", Change::kSplitQkv},
    {"self_attention.dense.weight", "attn_output.weight"},
    {"self_attention.dense.bias", "attn_output.bias"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"post_attention_layernorm.bias", "ffn_norm.bias"},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight"},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias"},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight"},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias"},
}};

constexpr std::array<NamePair, 2> kMptOuter{{
    {"transformer.wte.weight", "token_embd.weight"},
    {"transformer.norm_f.weight", "output_norm.weight"},
}};
constexpr std::array<NamePair, 6> kMpt{{
    {"norm_1.weight", "attn_norm.weight"},
    {"attn.Wqkv.weight", "attn_qkv.weight"},
    {"attn.out_proj.weight", "attn_output.weight"},
    {"norm_2.weight", "ffn_norm.weight"},
    {"ffn.up_proj.weight", "ffn_up.weight"},
    {"ffn.down_proj.weight", "ffn_down.weight"},
}};

// clang-format off
constexpr std::array kArchs = std::to_array<HfArch>({
    {"LlamaForCausalLM", "llama", "model.layers.", kOuter, kLlama, write_llama_keys},
    {"MistralForCausalLM", "llama", "model.layers.", kOuter, kLlama, write_llama_keys},
    {"MixtralForCausalLM", "llama", "model.layers.", kOuter, kLlama, write_llama_keys,
     "block_sparse_moe.experts.", kMixtralExperts},
    {"Qwen2ForCausalLM", "qwen2", "model.layers.", kOuter, kQwen, write_qwen_keys},
    {"Qwen3ForCausalLM", "qwen3", "model.layers.", kOuter, kQwen, write_qwen_keys},
    {"Qwen2MoeForCausalLM", "qwen2moe", "model.layers.", kOuter, kQwen, write_qwen_keys,
     "mlp.experts.", kQwenExperts},
    {"Qwen3MoeForCausalLM", "qwen3moe", "model.layers.", kOuter, kQwen, write_qwen_keys,
     "mlp.experts.", kQwenExperts},
    {"Gemma2ForCausalLM", "gemma2", "model.layers.", kGemmaOuter, kGemma, write_gemma2_keys},
    {"Gemma3ForCausalLM", "gemma3", "model.layers.", kGemmaOuter, kGemma, write_gemma3_keys},
    {"Phi3ForCausalLM", "phi3", "model.layers.", kOuter, kPhi3, write_phi3_keys},
    {"GPT2LMHeadModel", "gpt2", "transformer.h.", kGpt2Outer, kGpt2, write_layer_norm_keys},
    {"GPTNeoXForCausalLM", "gptneox", "gpt_neox.layers.", kGptNeoxOuter, kGptNeox, write_gptneox_keys},
    {"BloomForCausalLM", "bloom", "transformer.h.", kBloomOuter, kBloom, write_layer_norm_keys},
    {"MptForCausalLM", "mpt", "transformer.blocks.", kMptOuter, kMpt, write_mpt_keys},
});
// clang-format on

}  // namespace

std::span<const HfArch> archs() { return kArchs; }

}  // namespace infer::test::hf
