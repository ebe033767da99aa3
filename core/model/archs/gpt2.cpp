#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// GPT-2: learned positions, layer norms, biases everywhere.
/// Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gpt2");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  hp.n_pos = hp.n_ctx_train;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "activation_function", {"gelu_new", "gelu_pytorch_tanh"}));
  INFER_TRY(hf::expect_flag(c, "scale_attn_weights", true, "attention is scaled"));
  INFER_TRY(hf::expect_flag(c, "scale_attn_by_inverse_layer_idx", false, "not known"));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c));
  INFER_ASSIGN(const double eps, c.number({"layer_norm_epsilon"}, 1e-5));
  out.u32("block_count", s.n_layer)
      .u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("feed_forward_length", s.n_ff)
      .u32("attention.head_count", s.n_head)
      .f32("attention.layer_norm_epsilon", eps);
  return {};
}

constexpr std::array<std::string_view, 1> kNames{"GPT2LMHeadModel"};
constexpr std::array<HfName, 5> kOuter{{
    {"wte.weight", "token_embd.weight"},
    {"wpe.weight", "position_embd.weight"},
    {"ln_f.weight", "output_norm.weight"},
    {"ln_f.bias", "output_norm.bias"},
    {"lm_head.weight", "output.weight"},
}};
constexpr std::array<HfName, 14> kInner{{
    {"ln_1.weight", "attn_norm.weight"},
    {"ln_1.bias", "attn_norm.bias"},
    {"attn.c_attn.weight", "attn_qkv.weight", HfChange::kTranspose},
    {"attn.c_attn.bias", "attn_qkv.bias"},
    {"attn.c_proj.weight", "attn_output.weight", HfChange::kTranspose},
    {"attn.c_proj.bias", "attn_output.bias"},
    {"attn.bias", ""},  // the causal mask
    {"attn.masked_bias", ""},
    {"ln_2.weight", "ffn_norm.weight"},
    {"ln_2.bias", "ffn_norm.bias"},
    {"mlp.c_fc.weight", "ffn_up.weight", HfChange::kTranspose},
    {"mlp.c_fc.bias", "ffn_up.bias"},
    {"mlp.c_proj.weight", "ffn_down.weight", HfChange::kTranspose},
    {"mlp.c_proj.bias", "ffn_down.bias"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kTransformerPrefix,
                     .layers = "h.",
                     .outer = kOuter,
                     .inner = kInner,
                     .write_keys = write_keys,
                     .tied_by_default = true};

}  // namespace

constinit const ArchDef kGpt2{
    .name = "gpt2", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
