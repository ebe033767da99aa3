#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Llama 1, 2, 3, SmolLM2, 42dot LLM, Mistral with its sliding window, Mixtral with its experts.
/// Source: arXiv:2302.13971, arXiv:2307.09288, arXiv:2310.06825, arXiv:2401.04088. Rotary pairs are
/// (2i, 2i + 1): converters permute q and k.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.qkv_bias = decoder::Has::kMaybe,
                                  .proj_bias = decoder::Has::kMaybe};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "llama");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_TRY(read_experts(r, &hp));
  INFER_TRY(read_ropes(r, graph::RopeKind::kNorm, 10000.0, &hp));
  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  for (LayerHparams& layer : hp.layers) layer.window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

}  // namespace

constinit const ArchDef kLlama{
    .name = "llama", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
