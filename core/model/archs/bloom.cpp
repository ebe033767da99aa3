#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// BLOOM: ALiBi, a norm on the embedding, biases everywhere. Source: arXiv:2211.05100.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

constexpr float kAlibiMaxBias = 8.0f;

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "bloom");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  hp.alibi_max_bias = kAlibiMaxBias;
  hp.embed_norm = true;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

}  // namespace

constinit const ArchDef kBloom{
    .name = "bloom", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
