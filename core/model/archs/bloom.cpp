#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// BLOOM: ALiBi, a norm on the embedding, biases everywhere. Source: arXiv:2211.05100.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

constexpr float kAlibiMaxBias = 8.0f;

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "bloom");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  hp.alibi_max_bias = kAlibiMaxBias;
  hp.embed_norm = true;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_flag(c, "apply_residual_connection_post_layernorm", false, "not known"));
  // A configuration without a limit (ALiBi needs none): llama.cpp's converter writes the width.
  INFER_ASSIGN(const int64_t n_embd, c.integer({"hidden_size", "n_embed"}));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c, {.n_ctx = n_embd}));
  INFER_ASSIGN(const double eps, c.number({"layer_norm_epsilon"}, 1e-5));
  out.u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("feed_forward_length", s.n_ff)
      .u32("block_count", s.n_layer)
      .u32("attention.head_count", s.n_head)
      .u32("attention.head_count_kv", s.n_head)
      .f32("attention.layer_norm_epsilon", eps);
  return {};
}

constexpr std::array<std::string_view, 2> kNames{"BloomForCausalLM", "BloomModel"};
constexpr std::array<HfName, 6> kOuter{{
    {"word_embeddings.weight", "token_embd.weight"},
    {"word_embeddings_layernorm.weight", "token_embd_norm.weight"},
    {"word_embeddings_layernorm.bias", "token_embd_norm.bias"},
    {"ln_f.weight", "output_norm.weight"},
    {"ln_f.bias", "output_norm.bias"},
    {"lm_head.weight", "output.weight"},
}};
constexpr std::array<HfName, 12> kInner{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"input_layernorm.bias", "attn_norm.bias"},
    {"self_attention.query_key_value.weight", "attn_qkv.weight", HfChange::kSplitQkv},
    {"self_attention.query_key_value.bias", "attn_qkv.bias", HfChange::kSplitQkv},
    {"self_attention.dense.weight", "attn_output.weight"},
    {"self_attention.dense.bias", "attn_output.bias"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"post_attention_layernorm.bias", "ffn_norm.bias"},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight"},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias"},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight"},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kTransformerPrefix,
                     .layers = "h.",
                     .outer = kOuter,
                     .inner = kInner,
                     .write_keys = write_keys,
                     .tied_by_default = true};

}  // namespace

constinit const ArchDef kBloom{
    .name = "bloom", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
