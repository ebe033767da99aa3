#include <algorithm>
#include <cmath>

#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Gemma 3 (text): five layers with a sliding window and their own rotary base, then one with full
/// attention; norms before and after each half; RMS norm of each q and k head. Source:
/// arXiv:2503.19786. Norm weights in the file already include the + 1.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.qk_norm = true, .post_norms = true};

constexpr int64_t kLayers27B = 62;  // the only size whose attention scale is not 1 / sqrt(head_dim)

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gemma3");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  hp.embed_scale = std::sqrt(static_cast<float>(hp.n_embd));
  if (hp.n_layer == kLayers27B) {
    hp.attn_scale =
        1.0f / std::sqrt(static_cast<float>(hp.n_embd) / static_cast<float>(hp.n_head(0)));
  }
  INFER_ASSIGN(hp.attn_softcap, r.number("attn_logit_softcapping", 0.0, 1e6, 0.0));
  INFER_ASSIGN(hp.logit_softcap, r.number("final_logit_softcapping", 0.0, 1e6, 0.0));

  INFER_ASSIGN(graph::Rope full, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 1e6));
  INFER_ASSIGN(const float local_base, r.number("rope.freq_base_swa", 1.0, 1e12, 10000.0));
  graph::Rope local = plain_rope(graph::RopeKind::kNeox, full.rope_dim, local_base);
  hp.ropes = {std::move(full), std::move(local)};

  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  INFER_ASSIGN(const int64_t pattern, r.integer("attention.sliding_window_pattern", 1, 1 << 16, 6));
  for (size_t il = 0; il < hp.layers.size(); ++il) {
    const bool is_full = (static_cast<int64_t>(il) + 1) % pattern == 0;
    hp.layers[il].window = is_full ? 0 : window;
    hp.layers[il].rope = is_full ? 0 : 1;
  }
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

/// What the configuration says, or what transformers takes where the text model inside a larger one
/// says nothing.
Result<int64_t> window_period(const HfConfig& c) {
  INFER_ASSIGN(const auto types, c.texts("layer_types"));
  const auto full = std::find(types.begin(), types.end(), "full_attention");
  if (full != types.end()) return full - types.begin() + 1;
  return c.integer({"sliding_window_pattern", "_sliding_window_pattern"}, 6);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "hidden_activation", {"gelu_pytorch_tanh"}));
  INFER_TRY(hf::expect_flag(c, "use_bidirectional_attention", false, "attention is causal"));
  INFER_TRY(hf::expect_missing(c, "attn_logit_softcapping", "Gemma 3 has none"));
  INFER_ASSIGN(const hf::Sizes s,
               hf::read_sizes(c, {.n_ctx = 131072, .n_head = 8, .n_kv_head = 4, .head_dim = 256}));
  INFER_ASSIGN(hf::Rope rope, hf::read_rope(c, 1e6));
  if (rope.local_base == 0.0) rope.local_base = 10000.0;
  INFER_ASSIGN(const double eps, c.number({"rms_norm_eps"}, 1e-6));
  INFER_TRY(hf::check_gemma_scale(c, s, kLayers27B));
  INFER_TRY(hf::write_base(c, s, rope, eps, out));
  INFER_ASSIGN(const double cap, c.number({"final_logit_softcapping"}, 0.0));
  if (cap != 0.0) out.f32("final_logit_softcapping", cap);
  INFER_ASSIGN(const int64_t window, c.integer({"sliding_window"}, 4096));
  INFER_ASSIGN(const int64_t period, window_period(c));
  if (period < 1) return c.unsupported("sliding_window_pattern", "must be 1 or more");
  INFER_TRY(hf::check_layer_types(c, period));
  out.u32("attention.sliding_window", window);
  if (period != 6) out.u32("attention.sliding_window_pattern", period);
  return {};
}

constexpr std::array<std::string_view, 2> kNames{"Gemma3ForCausalLM",
                                                 "Gemma3ForConditionalGeneration"};
constexpr std::array<std::string_view, 4> kPrefixes{
    "language_model.model.", "model.language_model.", "language_model.", "model."};
constexpr std::array<std::string_view, 4> kLeftOut{"vision_tower.", "multi_modal_projector.",
                                                   "model.vision_tower.",
                                                   "model.multi_modal_projector."};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = kPrefixes,
                     .layers = "layers.",
                     .outer = hf::kGemmaOuter,
                     .inner = hf::kGemmaInner,
                     .write_keys = write_keys,
                     .left_out = kLeftOut,
                     .tied_by_default = true};

}  // namespace

constinit const ArchDef kGemma3{
    .name = "gemma3", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
