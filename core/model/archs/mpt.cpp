#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// MPT: ALiBi instead of positions, no biases. Source: MosaicML, 2023; ALiBi arXiv:2108.12409.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kMaybe,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kMaybe,
                                  .proj_bias = decoder::Has::kMaybe,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "mpt");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  INFER_ASSIGN(const float clamp, r.number("attention.clamp_kqv", 0.0, 1e6, 0.0));
  if (clamp != 0.0f)
    return r.unsupported("attention.clamp_kqv", std::to_string(clamp), "clamping of q, k and v");
  INFER_ASSIGN(hp.alibi_max_bias, r.number("attention.max_alibi_bias", 0.0, 1e3, 0.0));
  if (hp.alibi_max_bias == 0.0f) hp.n_pos = hp.n_ctx_train;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluErf);
}

}  // namespace

constinit const ArchDef kMpt{
    .name = "mpt", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
