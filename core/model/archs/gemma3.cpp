#include <cmath>

#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
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

}  // namespace

constinit const ArchDef kGemma3{
    .name = "gemma3", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
