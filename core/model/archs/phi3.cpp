#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
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

}  // namespace

constinit const ArchDef kPhi3{
    .name = "phi3", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
