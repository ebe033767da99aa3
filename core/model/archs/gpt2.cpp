#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// GPT-2: learned positions, layer norms, biases everywhere.
/// Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gpt2");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  hp.n_pos = hp.n_ctx_train;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluTanh);
}

}  // namespace

constinit const ArchDef kGpt2{
    .name = "gpt2", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
