#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// MPT: ALiBi instead of positions, no biases. Source: MosaicML, 2023; ALiBi arXiv:2108.12409.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kMaybe,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kMaybe,
                                  .proj_bias = decoder::Has::kMaybe,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "mpt");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  INFER_ASSIGN(const float clamp, r.number("attention.clamp_kqv", 0.0, 1e6, 0.0));
  if (clamp != 0.0f)
    return r.unsupported("attention.clamp_kqv", std::to_string(clamp), "clamping of q, k and v");
  INFER_ASSIGN(hp.alibi_max_bias, r.number("attention.max_alibi_bias", 0.0, 1e3, 0.0));
  if (hp.alibi_max_bias == 0.0f) hp.n_pos = hp.n_ctx_train;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluErf);
}

Result<void> check_config(const HfConfig& c, const HfConfig& attn) {
  INFER_TRY(hf::expect_flag(attn, "qk_ln", false, "norms of q and k are not known"));
  INFER_TRY(hf::expect_flag(attn, "prefix_lm", false, "attention is causal"));
  INFER_TRY(hf::expect_flag(attn, "rope", false, "rotary positions are not known"));
  INFER_TRY(hf::expect_missing(attn, "softmax_scale", "not known"));
  INFER_ASSIGN(const double clip, attn.number({"clip_qkv"}, 0.0));
  if (clip != 0.0) return attn.unsupported("clip_qkv", "clamping of q, k and v is not known");
  INFER_TRY(hf::expect_missing(c, "logit_scale", "not known"));
  return hf::expect_text(c, "norm_type", {"low_precision_layernorm", "layernorm"});
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_ASSIGN(const HfConfig attn, c.object("attn_config"));
  INFER_TRY(check_config(c, attn));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c));
  INFER_ASSIGN(const int64_t ratio, c.integer({"expansion_ratio"}, 4));
  INFER_ASSIGN(const double eps, c.number({"layer_norm_epsilon"}, 1e-5));
  INFER_ASSIGN(const bool alibi, attn.flag("alibi", false));
  INFER_ASSIGN(const double max_bias, attn.number({"alibi_bias_max"}, 8.0));
  INFER_ASSIGN(const std::string attn_type, attn.text({"attn_type"}, "multihead_attention"));
  INFER_ASSIGN(const int64_t n_kv_head,
               attn.integer({"kv_n_heads"}, attn_type == "multiquery_attention" ? 1 : 0));
  out.u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("block_count", s.n_layer)
      .u32("feed_forward_length", ratio * s.n_embd)
      .u32("attention.head_count", s.n_head);
  if (n_kv_head > 0) out.u32("attention.head_count_kv", n_kv_head);
  out.f32("attention.layer_norm_epsilon", eps);
  out.f32("attention.max_alibi_bias", alibi ? max_bias : 0.0);
  return {};
}

constexpr std::array<std::string_view, 2> kNames{"MptForCausalLM", "MPTForCausalLM"};
constexpr std::array<HfName, 5> kOuter{{
    {"wte.weight", "token_embd.weight"},
    {"wpe.weight", "position_embd.weight"},
    {"norm_f.weight", "output_norm.weight"},
    {"norm_f.bias", "output_norm.bias"},
    {"lm_head.weight", "output.weight"},
}};
constexpr std::array<HfName, 12> kInner{{
    {"norm_1.weight", "attn_norm.weight"},
    {"norm_1.bias", "attn_norm.bias"},
    {"attn.Wqkv.weight", "attn_qkv.weight"},
    {"attn.Wqkv.bias", "attn_qkv.bias"},
    {"attn.out_proj.weight", "attn_output.weight"},
    {"attn.out_proj.bias", "attn_output.bias"},
    {"norm_2.weight", "ffn_norm.weight"},
    {"norm_2.bias", "ffn_norm.bias"},
    {"ffn.up_proj.weight", "ffn_up.weight"},
    {"ffn.up_proj.bias", "ffn_up.bias"},
    {"ffn.down_proj.weight", "ffn_down.weight"},
    {"ffn.down_proj.bias", "ffn_down.bias"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kTransformerPrefix,
                     .layers = "blocks.",
                     .outer = kOuter,
                     .inner = kInner,
                     .write_keys = write_keys,
                     .tied_by_default = true};

}  // namespace

constinit const ArchDef kMpt{
    .name = "mpt", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
