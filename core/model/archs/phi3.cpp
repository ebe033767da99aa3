#include <cmath>

#include "core/base/error.h"
#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Phi-3 and Phi-4-mini: Llama with fused qkv and fused gate | up; long-context variants have two
/// sets of rotary factors. Source: arXiv:2404.14219; LongRoPE, arXiv:2402.13753.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.fused_qkv = true, .fused_gate_up = true};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "phi3");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_TRY(read_ropes(r, graph::RopeKind::kNeox, 10000.0, &hp));
  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  for (LayerHparams& layer : hp.layers) layer.window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

/// LongRoPE: two sets of factors, and the scale that readers multiply by.
Result<void> write_long_factors(const HfConfig& c, double n_ctx, double n_ctx_orig, size_t n_factor,
                                HfKeys& out) {
  double scale = 1.0;
  if (n_ctx > n_ctx_orig) {
    if (n_ctx_orig < 2.0) return c.unsupported("original_max_position_embeddings", "too small");
    scale = std::sqrt(1.0 + std::log(n_ctx / n_ctx_orig) / std::log(n_ctx_orig));
  }
  INFER_ASSIGN(scale, c.number({"attention_factor"}, scale));
  out.f32("rope.scaling.attn_factor", scale);
  constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kSets{
      {{"long_factor", kLongFactors}, {"short_factor", kShortFactors}}};
  for (const auto& [name, tensor] : kSets) {
    INFER_ASSIGN(const std::vector<double> factors, c.numbers(name));
    if (factors.size() != n_factor)
      return c.unsupported(name, fmt::format("must have {} numbers", n_factor));
    out.tensor(std::string(tensor), {factors.begin(), factors.end()});
  }
  return {};
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "hidden_act", {"silu"}));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c));
  INFER_ASSIGN(const hf::Rope rope, hf::read_rope(c));
  INFER_ASSIGN(const double eps, c.number({"rms_norm_eps"}));
  INFER_ASSIGN(const int64_t window, c.integer({"sliding_window"}, 0));
  const auto rope_dim = static_cast<int64_t>(rope.partial * static_cast<double>(s.head_dim));
  if (rope.type == "longrope" || rope.type == "su") {
    INFER_TRY(write_long_factors(rope.scaling, static_cast<double>(s.n_ctx),
                                 static_cast<double>(rope.n_ctx_orig),
                                 static_cast<size_t>(rope_dim / 2), out));
  } else if (rope.type != "default") {
    return rope.scaling.unsupported("type", "known are default and longrope");
  }
  out.u32("context_length", s.n_ctx)
      .u32("rope.scaling.original_context_length", rope.n_ctx_orig)
      .u32("embedding_length", s.n_embd)
      .u32("feed_forward_length", s.n_ff)
      .u32("block_count", s.n_layer)
      .u32("attention.head_count", s.n_head)
      .u32("attention.head_count_kv", s.n_kv_head)
      .f32("attention.layer_norm_rms_epsilon", eps)
      .u32("rope.dimension_count", rope_dim)
      .f32("rope.freq_base", rope.base)
      .u32("attention.sliding_window", window);
  return {};
}

constexpr std::array<std::string_view, 1> kNames{"Phi3ForCausalLM"};
constexpr std::array<HfName, 7> kInner{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kOuter,
                     .inner = kInner,
                     .write_keys = write_keys};

}  // namespace

constinit const ArchDef kPhi3{
    .name = "phi3", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
