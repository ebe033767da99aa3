#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// GPT-NeoX and Pythia: parallel residual, rotary embedding on a part of each head. Source:
/// arXiv:2204.06745.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.norm = graph::NormKind::kLayer,
                                  .norm_bias = decoder::Has::kYes,
                                  .fused_qkv = true,
                                  .qkv_bias = decoder::Has::kYes,
                                  .proj_bias = decoder::Has::kYes,
                                  .gated = false};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gptneox");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_epsilon"));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  INFER_ASSIGN(hp.parallel_residual, file.get_bool("gptneox.use_parallel_residual", true));
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kGeluErf);
}

}  // namespace

constinit const ArchDef kGptNeox{
    .name = "gptneox", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
