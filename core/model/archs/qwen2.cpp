#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Qwen2 and Qwen2.5: Llama with q, k and v biases. Source: arXiv:2407.10671.
namespace infer::model {
namespace {

constexpr decoder::Layout kLayout{.qkv_bias = decoder::Has::kYes};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "qwen2");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) { return hf::write_qwen(c, {}, out); }

constexpr std::array<std::string_view, 1> kNames{"Qwen2ForCausalLM"};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kOuter,
                     .inner = hf::kQwenInner,
                     .write_keys = write_keys};

}  // namespace

constinit const ArchDef kQwen2{
    .name = "qwen2", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
