#include "core/model/archs/decoder.h"

#include <cmath>

namespace infer::model::decoder {
namespace {

class Specs {
 public:
  void add(std::string name, std::vector<int64_t> shape, Has has = Has::kYes) {
    if (has != Has::kNo) all_.push_back({std::move(name), std::move(shape), has == Has::kYes});
  }
  /// prefix + ".weight" [k, n] and ".bias" [n].
  void linear(const std::string& prefix, int64_t k, int64_t n, Has bias) {
    add(prefix + ".weight", {k, n});
    add(prefix + ".bias", {n}, bias);
  }
  void norm(const std::string& prefix, int64_t n, Has bias) {
    add(prefix + ".weight", {n});
    add(prefix + ".bias", {n}, bias);
  }
  std::vector<TensorSpec> take() { return std::move(all_); }

 private:
  std::vector<TensorSpec> all_;
};

void add_attention(Specs& s, const Hparams& hp, const Layout& l, int il) {
  const int64_t n_q = hp.n_head(il) * hp.head_dim;
  const int64_t n_k = hp.n_kv_head(il) * hp.head_dim;
  const int64_t n_v = hp.n_kv_head(il) * hp.head_dim_v;
  s.norm(blk(il) + "attn_norm", hp.n_embd, l.norm_bias);
  if (l.fused_qkv) {
    s.linear(blk(il) + "attn_qkv", hp.n_embd, n_q + n_k + n_v, l.qkv_bias);
  } else {
    s.linear(blk(il) + "attn_q", hp.n_embd, n_q, l.qkv_bias);
    s.linear(blk(il) + "attn_k", hp.n_embd, n_k, l.qkv_bias);
    s.linear(blk(il) + "attn_v", hp.n_embd, n_v, l.qkv_bias);
  }
  s.linear(blk(il) + "attn_output", hp.n_head(il) * hp.head_dim_v, hp.n_embd, l.proj_bias);
  if (l.qk_norm) {
    s.add(blk(il) + "attn_q_norm.weight", {hp.head_dim});
    s.add(blk(il) + "attn_k_norm.weight", {hp.head_dim});
  }
  if (l.post_norms) s.norm(blk(il) + "post_attention_norm", hp.n_embd, l.norm_bias);
}

void add_experts(Specs& s, const Hparams& hp, int il) {
  s.add(blk(il) + "ffn_gate_inp.weight", {hp.n_embd, hp.n_expert});
  s.add(blk(il) + "ffn_gate_exps.weight", {hp.n_embd, hp.n_ff_exp, hp.n_expert});
  s.add(blk(il) + "ffn_up_exps.weight", {hp.n_embd, hp.n_ff_exp, hp.n_expert});
  s.add(blk(il) + "ffn_down_exps.weight", {hp.n_ff_exp, hp.n_embd, hp.n_expert});
  if (hp.n_ff_shexp == 0) return;
  s.add(blk(il) + "ffn_gate_inp_shexp.weight", {hp.n_embd});
  s.add(blk(il) + "ffn_gate_shexp.weight", {hp.n_embd, hp.n_ff_shexp});
  s.add(blk(il) + "ffn_up_shexp.weight", {hp.n_embd, hp.n_ff_shexp});
  s.add(blk(il) + "ffn_down_shexp.weight", {hp.n_ff_shexp, hp.n_embd});
}

void add_mlp(Specs& s, const Hparams& hp, const Layout& l, int il) {
  const int64_t n_ff = hp.n_ff(il);
  s.norm(blk(il) + "ffn_norm", hp.n_embd, l.norm_bias);
  if (hp.n_expert > 0) return add_experts(s, hp, il);
  if (l.gated && !l.fused_gate_up) s.linear(blk(il) + "ffn_gate", hp.n_embd, n_ff, l.proj_bias);
  s.linear(blk(il) + "ffn_up", hp.n_embd, l.fused_gate_up ? 2 * n_ff : n_ff, l.proj_bias);
  s.linear(blk(il) + "ffn_down", n_ff, hp.n_embd, l.proj_bias);
  if (l.post_norms) s.norm(blk(il) + "post_ffw_norm", hp.n_embd, l.norm_bias);
}

/// Slopes of ALiBi, arXiv:2108.12409 section 3, with the interleaving for head counts that are no
/// power of two.
std::vector<float> alibi_slopes(int64_t n_head, float max_bias) {
  std::vector<float> slopes;
  int64_t n_pow2 = 1;
  while (2 * n_pow2 <= n_head) n_pow2 *= 2;
  for (int64_t h = 0; h < n_head; ++h) {
    const bool extra = h >= n_pow2;
    const double step =
        static_cast<double>(max_bias) / static_cast<double>(extra ? 2 * n_pow2 : n_pow2);
    const auto turn = static_cast<double>(extra ? 2 * (h - n_pow2) + 1 : h + 1);
    slopes.push_back(static_cast<float>(std::exp2(-step * turn)));
  }
  return slopes;
}

}  // namespace

std::vector<TensorSpec> tensors(const Hparams& hp, const Layout& layout) {
  Specs s;
  s.add("token_embd.weight", {hp.n_embd, hp.n_vocab});
  if (hp.n_pos > 0) s.add("position_embd.weight", {hp.n_embd, hp.n_pos});
  if (hp.embed_norm) s.norm("token_embd_norm", hp.n_embd, layout.norm_bias);
  for (int il = 0; il < hp.n_layer; ++il) {
    add_attention(s, hp, layout, il);
    add_mlp(s, hp, layout, il);
  }
  s.norm("output_norm", hp.n_embd, layout.norm_bias);
  s.add("output.weight", {hp.n_embd, hp.n_vocab}, Has::kMaybe);
  return s.take();
}

graph::Norm norm(graph::Builder& g, const Hparams& hp, const Layout& layout,
                 const std::string& prefix) {
  return {layout.norm, g.weight(prefix + ".weight"), g.optional(prefix + ".bias"), hp.norm_eps};
}

graph::AttnSpec attn(graph::Builder& g, const Hparams& hp, const Layout& layout, int il) {
  graph::AttnSpec a;
  a.norm = norm(g, hp, layout, blk(il) + "attn_norm");
  if (layout.fused_qkv) {
    const int64_t n_q = hp.n_head(il) * hp.head_dim;
    const int64_t n_k = hp.n_kv_head(il) * hp.head_dim;
    a.q = g.linear_rows(blk(il) + "attn_qkv", 0, n_q);
    a.k = g.linear_rows(blk(il) + "attn_qkv", n_q, n_k);
    a.v = g.linear_rows(blk(il) + "attn_qkv", n_q + n_k, hp.n_kv_head(il) * hp.head_dim_v);
  } else {
    a.q = g.linear(blk(il) + "attn_q");
    a.k = g.linear(blk(il) + "attn_k");
    a.v = g.linear(blk(il) + "attn_v");
  }
  a.out = g.linear(blk(il) + "attn_output");
  if (layout.qk_norm) {
    a.q_norm = g.weight(blk(il) + "attn_q_norm.weight");
    a.k_norm = g.weight(blk(il) + "attn_k_norm.weight");
  }
  if (layout.post_norms) a.post_norm = norm(g, hp, layout, blk(il) + "post_attention_norm");
  a.n_head = hp.n_head(il);
  a.n_kv_head = hp.n_kv_head(il);
  a.head_dim = hp.head_dim;
  a.head_dim_v = hp.head_dim_v;
  a.rope = hp.ropes.empty() ? -1 : hp.rope(il);
  a.window = hp.window(il);
  a.scale = hp.attn_scale;
  a.softcap = hp.attn_softcap;
  if (hp.alibi_max_bias > 0.0f) a.alibi_slopes = alibi_slopes(a.n_head, hp.alibi_max_bias);
  return a;
}

graph::MlpSpec mlp(graph::Builder& g, const Hparams& hp, const Layout& layout, int il,
                   graph::GluKind act) {
  graph::MlpSpec m;
  m.norm = norm(g, hp, layout, blk(il) + "ffn_norm");
  if (layout.fused_gate_up) {
    m.gate = g.linear_rows(blk(il) + "ffn_up", 0, hp.n_ff(il));
    m.up = g.linear_rows(blk(il) + "ffn_up", hp.n_ff(il), hp.n_ff(il));
  } else {
    if (layout.gated) m.gate = g.linear(blk(il) + "ffn_gate");
    m.up = g.linear(blk(il) + "ffn_up");
  }
  m.down = g.linear(blk(il) + "ffn_down");
  m.act = act;
  if (layout.post_norms) m.post_norm = norm(g, hp, layout, blk(il) + "post_ffw_norm");
  return m;
}

graph::MoeSpec moe(graph::Builder& g, const Hparams& hp, const Layout& layout, int il) {
  graph::MoeSpec m;
  m.norm = norm(g, hp, layout, blk(il) + "ffn_norm");
  m.router = g.weight(blk(il) + "ffn_gate_inp.weight");
  m.gate = g.weight(blk(il) + "ffn_gate_exps.weight");
  m.up = g.weight(blk(il) + "ffn_up_exps.weight");
  m.down = g.weight(blk(il) + "ffn_down_exps.weight");
  m.n_expert = hp.n_expert;
  m.n_used = hp.n_expert_used;
  m.normalise = hp.expert_weights_norm;
  if (hp.n_ff_shexp == 0) return m;
  m.shared_router = g.weight(blk(il) + "ffn_gate_inp_shexp.weight");
  m.shared_gate = g.linear(blk(il) + "ffn_gate_shexp");
  m.shared_up = g.linear(blk(il) + "ffn_up_shexp");
  m.shared_down = g.linear(blk(il) + "ffn_down_shexp");
  return m;
}

void output(graph::Builder& g, const Hparams& hp, const Layout& layout, graph::ValueId x) {
  graph::OutputSpec out;
  out.norm = norm(g, hp, layout, "output_norm");
  out.output.weight = g.optional("output.weight");
  if (out.output.weight == graph::kNoWeight) out.output.weight = g.weight("token_embd.weight");
  out.scale = hp.logit_scale;
  out.softcap = hp.logit_softcap;
  g.output_block(x, out);
}

void build(graph::Builder& g, const Hparams& hp, const Layout& layout, graph::GluKind act) {
  graph::EmbedAttrs embed;
  embed.table = g.weight("token_embd.weight");
  embed.positions = hp.n_pos > 0 ? g.weight("position_embd.weight") : graph::kNoWeight;
  embed.scale = hp.embed_scale;
  graph::ValueId x =
      g.input_block(embed, hp.embed_norm ? norm(g, hp, layout, "token_embd_norm") : graph::Norm{});
  for (int il = 0; il < hp.n_layer; ++il) {
    if (hp.parallel_residual) {
      x = g.parallel_block(x, il, attn(g, hp, layout, il), mlp(g, hp, layout, il, act));
      continue;
    }
    x = g.attn_block(x, il, attn(g, hp, layout, il));
    x = hp.n_expert > 0 ? g.moe_block(x, il, moe(g, hp, layout, il))
                        : g.mlp_block(x, il, mlp(g, hp, layout, il, act));
  }
  output(g, hp, layout, x);
}

}  // namespace infer::model::decoder
