#include <cmath>

#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
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

}  // namespace

constinit const ArchDef kGemma2{
    .name = "gemma2", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
