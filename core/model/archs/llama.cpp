#include "core/model/archs/archs.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Llama 1, 2, 3, SmolLM2, 42dot LLM, and Mistral with its sliding window.
/// Source: arXiv:2302.13971, arXiv:2307.09288, arXiv:2310.06825. Rotary pairs are (2i, 2i + 1):
/// converters permute q and k.
namespace infer::model {
namespace {

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "llama");
  INFER_ASSIGN(const int64_t n_expert, r.integer("expert_count", 0, 1 << 16, 0));
  if (n_expert > 0) {
    return r.unsupported("expert_count", std::to_string(n_expert),
                         "mixture of experts is not supported yet");
  }
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_ASSIGN(graph::Rope rope, read_rope(r, graph::RopeKind::kNorm, hp.head_dim, 10000.0));
  hp.ropes = {std::move(rope)};
  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  for (LayerHparams& layer : hp.layers) layer.window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) {
  std::vector<TensorSpec> t = {{"token_embd.weight", {hp.n_embd, hp.n_vocab}},
                               {"output_norm.weight", {hp.n_embd}},
                               {"output.weight", {hp.n_embd, hp.n_vocab}, /*required=*/false}};
  for (int il = 0; il < hp.n_layer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    const int64_t n_q = hp.n_head(il) * hp.head_dim;
    const int64_t n_k = hp.n_kv_head(il) * hp.head_dim;
    const int64_t n_v = hp.n_kv_head(il) * hp.head_dim_v;
    const int64_t n_ff = hp.n_ff(il);
    t.insert(t.end(), {{blk + "attn_norm.weight", {hp.n_embd}},
                       {blk + "attn_q.weight", {hp.n_embd, n_q}},
                       {blk + "attn_k.weight", {hp.n_embd, n_k}},
                       {blk + "attn_v.weight", {hp.n_embd, n_v}},
                       {blk + "attn_output.weight", {hp.n_head(il) * hp.head_dim_v, hp.n_embd}},
                       {blk + "attn_q.bias", {n_q}, false},
                       {blk + "attn_k.bias", {n_k}, false},
                       {blk + "attn_v.bias", {n_v}, false},
                       {blk + "attn_output.bias", {hp.n_embd}, false},
                       {blk + "ffn_norm.weight", {hp.n_embd}},
                       {blk + "ffn_gate.weight", {hp.n_embd, n_ff}},
                       {blk + "ffn_up.weight", {hp.n_embd, n_ff}},
                       {blk + "ffn_down.weight", {n_ff, hp.n_embd}},
                       {blk + "ffn_gate.bias", {n_ff}, false},
                       {blk + "ffn_up.bias", {n_ff}, false},
                       {blk + "ffn_down.bias", {hp.n_embd}, false}});
  }
  return t;
}

void build(graph::Builder& g, const Hparams& hp) {
  const auto rms = [&](const std::string& name) {
    return graph::Norm{graph::NormKind::kRms, g.weight(name), graph::kNoWeight, hp.norm_eps};
  };
  const int rope = 0;
  graph::ValueId x = g.input_block(g.weight("token_embd.weight"), hp.embed_scale);
  for (int il = 0; il < hp.n_layer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    graph::AttnSpec attn;
    attn.norm = rms(blk + "attn_norm.weight");
    attn.q = g.linear(blk + "attn_q");
    attn.k = g.linear(blk + "attn_k");
    attn.v = g.linear(blk + "attn_v");
    attn.out = g.linear(blk + "attn_output");
    attn.n_head = hp.n_head(il);
    attn.n_kv_head = hp.n_kv_head(il);
    attn.head_dim = hp.head_dim;
    attn.head_dim_v = hp.head_dim_v;
    attn.rope = rope;
    attn.window = hp.window(il);
    attn.scale = hp.attn_scale;
    x = g.attn_block(x, il, attn);

    graph::MlpSpec mlp;
    mlp.norm = rms(blk + "ffn_norm.weight");
    mlp.gate = g.linear(blk + "ffn_gate");
    mlp.up = g.linear(blk + "ffn_up");
    mlp.down = g.linear(blk + "ffn_down");
    mlp.act = graph::GluKind::kSilu;
    x = g.mlp_block(x, il, mlp);
  }
  graph::OutputSpec out;
  out.norm = rms("output_norm.weight");
  out.output.weight = g.optional("output.weight");
  if (out.output.weight == graph::kNoWeight) out.output.weight = g.weight("token_embd.weight");
  g.output_block(x, out);
}

}  // namespace

constinit const ArchDef kLlama{
    .name = "llama", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
