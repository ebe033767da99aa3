#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Phi-3: Llama with fused qkv and fused gate | up. The long-context variants, whose rotary factors
/// come as tensors rope_factors_long and _short, are refused by name. Source: arXiv:2404.14219.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.fused_qkv = true, .fused_gate_up = true};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "phi3");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  for (LayerHparams& layer : hp.layers) layer.window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

}  // namespace

constinit const ArchDef kPhi3{
    .name = "phi3", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
