#include <cmath>

#include "core/model/archs/archs.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Gemma 3 (text). Five layers with a sliding window and their own rotary base, then one with full
/// attention; norms before and after each half; RMS norm of each q and k head. Source:
/// arXiv:2503.19786. Norm weights in the file already include the + 1.
namespace infer::model {
namespace {

constexpr int64_t kLayers27B = 62;  // the only size whose attention scale is not 1 / sqrt(head_dim)

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "gemma3");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  hp.embed_scale = std::sqrt(static_cast<float>(hp.n_embd));
  if (hp.n_layer == kLayers27B) {
    hp.attn_scale =
        1.0f / std::sqrt(static_cast<float>(hp.n_embd) / static_cast<float>(hp.n_head(0)));
  }
  INFER_ASSIGN(hp.attn_softcap, r.number("attn_logit_softcapping", 0.0, 1e6, 0.0));
  INFER_ASSIGN(hp.logit_softcap, r.number("final_logit_softcapping", 0.0, 1e6, 0.0));

  INFER_ASSIGN(graph::Rope full, read_rope(r, graph::RopeKind::kNeox, hp.head_dim, 1e6));
  INFER_ASSIGN(const float local_base, r.number("rope.freq_base_swa", 1.0, 1e12, 10000.0));
  graph::Rope local = plain_rope(graph::RopeKind::kNeox, full.rope_dim, local_base);
  hp.ropes = {std::move(full), std::move(local)};

  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  INFER_ASSIGN(const int64_t pattern, r.integer("attention.sliding_window_pattern", 1, 1 << 16, 6));
  for (size_t il = 0; il < hp.layers.size(); ++il) {
    const bool is_full = (static_cast<int64_t>(il) + 1) % pattern == 0;
    hp.layers[il].window = is_full ? 0 : window;
    hp.layers[il].rope = is_full ? 0 : 1;
  }
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) {
  std::vector<TensorSpec> t = {{"token_embd.weight", {hp.n_embd, hp.n_vocab}},
                               {"output_norm.weight", {hp.n_embd}},
                               {"output.weight", {hp.n_embd, hp.n_vocab}, /*required=*/false}};
  for (int il = 0; il < hp.n_layer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    const int64_t n_ff = hp.n_ff(il);
    t.insert(t.end(), {{blk + "attn_norm.weight", {hp.n_embd}},
                       {blk + "attn_q.weight", {hp.n_embd, hp.n_head(il) * hp.head_dim}},
                       {blk + "attn_k.weight", {hp.n_embd, hp.n_kv_head(il) * hp.head_dim}},
                       {blk + "attn_v.weight", {hp.n_embd, hp.n_kv_head(il) * hp.head_dim_v}},
                       {blk + "attn_output.weight", {hp.n_head(il) * hp.head_dim_v, hp.n_embd}},
                       {blk + "attn_q_norm.weight", {hp.head_dim}},
                       {blk + "attn_k_norm.weight", {hp.head_dim}},
                       {blk + "post_attention_norm.weight", {hp.n_embd}},
                       {blk + "ffn_norm.weight", {hp.n_embd}},
                       {blk + "ffn_gate.weight", {hp.n_embd, n_ff}},
                       {blk + "ffn_up.weight", {hp.n_embd, n_ff}},
                       {blk + "ffn_down.weight", {n_ff, hp.n_embd}},
                       {blk + "post_ffw_norm.weight", {hp.n_embd}}});
  }
  return t;
}

void build(graph::Builder& g, const Hparams& hp) {
  const auto rms = [&](const std::string& name) {
    return graph::Norm{graph::NormKind::kRms, g.weight(name), graph::kNoWeight, hp.norm_eps};
  };
  graph::ValueId x = g.input_block(g.weight("token_embd.weight"), hp.embed_scale);
  for (int il = 0; il < hp.n_layer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    graph::AttnSpec attn;
    attn.norm = rms(blk + "attn_norm.weight");
    attn.q = g.linear(blk + "attn_q");
    attn.k = g.linear(blk + "attn_k");
    attn.v = g.linear(blk + "attn_v");
    attn.out = g.linear(blk + "attn_output");
    attn.q_norm = g.weight(blk + "attn_q_norm.weight");
    attn.k_norm = g.weight(blk + "attn_k_norm.weight");
    attn.post_norm = rms(blk + "post_attention_norm.weight");
    attn.n_head = hp.n_head(il);
    attn.n_kv_head = hp.n_kv_head(il);
    attn.head_dim = hp.head_dim;
    attn.head_dim_v = hp.head_dim_v;
    attn.rope = hp.rope(il);
    attn.window = hp.window(il);
    attn.scale = hp.attn_scale;
    attn.softcap = hp.attn_softcap;
    x = g.attn_block(x, il, attn);

    graph::MlpSpec mlp;
    mlp.norm = rms(blk + "ffn_norm.weight");
    mlp.gate = g.linear(blk + "ffn_gate");
    mlp.up = g.linear(blk + "ffn_up");
    mlp.down = g.linear(blk + "ffn_down");
    mlp.act = graph::GluKind::kGeluTanh;
    mlp.post_norm = rms(blk + "post_ffw_norm.weight");
    x = g.mlp_block(x, il, mlp);
  }
  graph::OutputSpec out;
  out.norm = rms("output_norm.weight");
  out.output.weight = g.optional("output.weight");
  if (out.output.weight == graph::kNoWeight) out.output.weight = g.weight("token_embd.weight");
  out.softcap = hp.logit_softcap;
  g.output_block(x, out);
}

}  // namespace

constinit const ArchDef kGemma3{
    .name = "gemma3", .read_hparams = read_hparams, .tensors = tensors, .build = build};

}  // namespace infer::model
