#include <cmath>

#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Gemma 2: every other layer has a sliding window; norms before and after each half; soft caps on
/// attention and logits. Source: arXiv:2408.00118. Norm weights in the file already include the
/// + 1.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.post_norms = true};

constexpr int64_t kLayers27B = 46;  // the only size whose attention scale is not 1 / sqrt(head_dim)

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gemma2");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  hp.embed_scale = std::sqrt(static_cast<float>(hp.n_embd));
  if (hp.n_layer == kLayers27B) {
    hp.attn_scale =
        1.0f / std::sqrt(static_cast<float>(hp.n_embd) / static_cast<float>(hp.n_head(0)));
  }
  INFER_ASSIGN(hp.attn_softcap, r.number("attn_logit_softcapping", 0.0, 1e6, 50.0));
  INFER_ASSIGN(hp.logit_softcap, r.number("final_logit_softcapping", 0.0, 1e6, 30.0));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  INFER_ASSIGN(const int64_t window,
               r.integer("attention.sliding_window", 0, int64_t{1} << 30, 4096));
  for (size_t il = 0; il < hp.layers.size(); il += 2) hp.layers[il].window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

/// Order of keys as llama.cpp's converter has it, which leaves a rope base of 10000 out.
Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "hidden_activation", {"gelu_pytorch_tanh"}));
  INFER_TRY(hf::expect_flag(c, "use_bidirectional_attention", false, "attention is causal"));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c, {.n_ctx = 8192, .head_dim = 256}));
  INFER_ASSIGN(const hf::Rope rope, hf::read_rope(c));
  INFER_ASSIGN(const double eps, c.number({"rms_norm_eps"}, 1e-6));
  INFER_TRY(hf::check_gemma_scale(c, s, kLayers27B));
  INFER_TRY(hf::check_layer_types(c, 2));
  const auto cap = [&](std::string_view name, double usual) {
    return c.number({name}, c.is_null(name) ? 0.0 : usual);
  };
  INFER_ASSIGN(const double attn_cap, cap("attn_logit_softcapping", 50.0));
  INFER_ASSIGN(const double logit_cap, cap("final_logit_softcapping", 30.0));
  INFER_ASSIGN(const int64_t window, c.integer({"sliding_window"}, 4096));
  out.u32("context_length", s.n_ctx)
      .u32("embedding_length", s.n_embd)
      .u32("block_count", s.n_layer)
      .u32("feed_forward_length", s.n_ff)
      .u32("attention.head_count", s.n_head)
      .u32("attention.head_count_kv", s.n_kv_head)
      .f32("attention.layer_norm_rms_epsilon", eps)
      .u32("attention.key_length", s.head_dim)
      .u32("attention.value_length", s.head_dim)
      .f32("attn_logit_softcapping", attn_cap)
      .f32("final_logit_softcapping", logit_cap)
      .u32("attention.sliding_window", window);
  if (rope.base != 10000.0) out.f32("rope.freq_base", rope.base);
  return hf::write_scaling(rope, out);
}

constexpr std::array<std::string_view, 1> kNames{"Gemma2ForCausalLM"};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kGemmaOuter,
                     .inner = hf::kGemmaInner,
                     .write_keys = write_keys,
                     .tied_by_default = true};

}  // namespace

constinit const ArchDef kGemma2{
    .name = "gemma2", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
