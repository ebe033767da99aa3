#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Qwen3-MoE: Qwen3 with experts, their weights normalised. Source: arXiv:2505.09388.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.qk_norm = true};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "qwen3moe");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_TRY(read_experts(r, &hp));
  if (hp.n_expert == 0) return r.contradiction("expert_count", 0, "this architecture has experts");
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 1e6));
  hp.ropes = {std::move(rope)};
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::write_qwen(c, {}, out));
  return hf::write_qwen_experts(c, /*weights_norm=*/true, out);
}

constexpr std::array<std::string_view, 1> kNames{"Qwen3MoeForCausalLM"};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kOuter,
                     .inner = hf::kQwenInner,
                     .write_keys = write_keys,
                     .experts = "mlp.experts.",
                     .expert_tensors = hf::kQwenExperts};

}  // namespace

constinit const ArchDef kQwen3Moe{.name = "qwen3moe",
                                  .read_hparams = read_hparams,
                                  .tensors = tensors,
                                  .build = build,
                                  .hf = &kHf};

}  // namespace infer::model
