#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// GPT-NeoX and Pythia: parallel residual, rotary embedding on a part of each head. Source:
/// arXiv:2204.06745.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gptneox");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  INFER_ASSIGN(hp.parallel_residual, file.get_bool("gptneox.use_parallel_residual", true));
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluErf);
}

/// Order of keys as llama.cpp's converter has it, which leaves a rope base of 10000 out. The erf
/// and tanh forms of GELU have one name in GGUF.
Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "hidden_act", {"gelu", "gelu_fast", "gelu_new"}));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c));
  INFER_ASSIGN(const hf::Rope rope, hf::read_rope(c, 10000.0, 0.25));
  INFER_ASSIGN(const double eps, c.number({"layer_norm_eps"}, 1e-5));
  INFER_ASSIGN(const bool parallel, c.flag("use_parallel_residual", true));
  const auto rope_dim = static_cast<int64_t>(rope.partial * static_cast<double>(s.head_dim));
  out.u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("block_count", s.n_layer)
      .u32("feed_forward_length", s.n_ff)
      .u32("rope.dimension_count", rope_dim)
      .u32("attention.head_count", s.n_head)
      .flag("use_parallel_residual", parallel)
      .f32("attention.layer_norm_epsilon", eps);
  if (rope.base != 10000.0) out.f32("rope.freq_base", rope.base);
  return hf::write_scaling(rope, out);
}

constexpr std::array<std::string_view, 1> kNames{"GPTNeoXForCausalLM"};
constexpr std::array<std::string_view, 1> kPrefixes{"gpt_neox."};
constexpr std::array<HfName, 4> kOuter{{
    {"embed_in.weight", "token_embd.weight"},
    {"final_layer_norm.weight", "output_norm.weight"},
    {"final_layer_norm.bias", "output_norm.bias"},
    {"embed_out.weight", "output.weight"},
}};
constexpr std::array<HfName, 15> kInner{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"input_layernorm.bias", "attn_norm.bias"},
    {"attention.query_key_value.weight", "attn_qkv.weight", HfChange::kSplitQkv},
    {"attention.query_key_value.bias", "attn_qkv.bias", HfChange::kSplitQkv},
    {"attention.dense.weight", "attn_output.weight"},
    {"attention.dense.bias", "attn_output.bias"},
    {"attention.bias", ""},  // the causal mask
    {"attention.masked_bias", ""},
    {"attention.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"post_attention_layernorm.bias", "ffn_norm.bias"},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight"},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias"},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight"},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = kPrefixes,
                     .layers = "layers.",
                     .outer = kOuter,
                     .inner = kInner,
                     .write_keys = write_keys};

}  // namespace

constinit const ArchDef kGptNeox{.name = "gptneox",
                                 .read_hparams = read_hparams,
                                 .tensors = tensors,
                                 .build = build,
                                 .hf = &kHf};

}  // namespace infer::model
