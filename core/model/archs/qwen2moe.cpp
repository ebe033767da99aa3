#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Qwen1.5-MoE and Qwen2-MoE: experts whose weights are not normalised, beside a shared expert with
/// a gate of its own. Source: arXiv:2407.10671 section 2.2.2.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.qkv_bias = decoder::Has::kYes};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "qwen2moe");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_TRY(read_experts(r, &hp));
  if (hp.n_expert == 0) return r.contradiction("expert_count", 0, "this architecture has experts");
  INFER_ASSIGN(hp.n_ff_shexp,
               r.integer("expert_shared_feed_forward_length", 1, 1 << 22, hp.n_ff(0)));
  hp.expert_weights_norm = false;
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::write_qwen(c, {}, out));
  return hf::write_qwen_experts(c, /*weights_norm=*/false, out);
}

constexpr std::array<std::string_view, 1> kNames{"Qwen2MoeForCausalLM"};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kOuter,
                     .inner = hf::kQwenInner,
                     .write_keys = write_keys,
                     .experts = "mlp.experts.",
                     .expert_tensors = hf::kQwenExperts};

}  // namespace

constinit const ArchDef kQwen2Moe{.name = "qwen2moe",
                                  .read_hparams = read_hparams,
                                  .tensors = tensors,
                                  .build = build,
                                  .hf = &kHf};

}  // namespace infer::model
