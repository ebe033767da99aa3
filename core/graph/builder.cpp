#include "core/graph/builder.h"

#include <utility>

#include "core/base/check.h"

namespace infer::graph {

Builder::Builder(Graph* graph, std::unordered_map<std::string, TensorView> tensors, bool unfused)
    : g_(graph), tensors_(std::move(tensors)), unfused_(unfused) {}

WeightId Builder::optional(const std::string& name) {
  if (const auto known = ids_.find(name); known != ids_.end()) return known->second;
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return kNoWeight;
  const auto id = static_cast<WeightId>(g_->weights.size());
  g_->weights.push_back({name, it->second, name, 0});
  ids_.emplace(name, id);
  return id;
}

WeightId Builder::weight(const std::string& name) {
  const WeightId id = optional(name);
  INFER_CHECK(id != kNoWeight, "tensor '{}' was not checked by the loader", name);
  return id;
}

Linear Builder::linear(const std::string& prefix) {
  return {weight(prefix + ".weight"), optional(prefix + ".bias")};
}

WeightId Builder::rows_of_tensor(const std::string& name, int64_t begin, int64_t n) {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return kNoWeight;
  const std::string part =
      name + "[" + std::to_string(begin) + ", " + std::to_string(begin + n) + ")";
  if (const auto known = ids_.find(part); known != ids_.end()) return known->second;
  TensorView view = it->second;
  const bool is_vector = view.ne[1] == 1;
  const int64_t n_rows = is_vector ? view.ne[0] : view.ne[1];
  INFER_CHECK(begin >= 0 && n > 0 && begin + n <= n_rows, "{} of {} rows", part, n_rows);
  const int64_t row_bytes = view.n_bytes / n_rows;
  view.ne[is_vector ? 0 : 1] = n;
  view.data += begin * row_bytes;
  view.n_bytes = n * row_bytes;
  const auto id = static_cast<WeightId>(g_->weights.size());
  g_->weights.push_back({part, view, name, begin});
  ids_.emplace(part, id);
  return id;
}

Linear Builder::linear_rows(const std::string& prefix, int64_t begin, int64_t n) {
  const WeightId w = rows_of_tensor(prefix + ".weight", begin, n);
  INFER_CHECK(w != kNoWeight, "tensor '{}.weight' was not checked by the loader", prefix);
  return {w, rows_of_tensor(prefix + ".bias", begin, n)};
}

ValueId Builder::value(std::string name, int64_t n_cols, Rows rows) {
  g_->values.push_back({std::move(name), rows, n_cols});
  return static_cast<ValueId>(g_->values.size() - 1);
}

Op& Builder::op(OpKind kind, int il, std::string name, std::vector<ValueId> in,
                std::vector<ValueId> out, OpAttrs attrs) {
  return g_->ops.emplace_back(
      Op{kind, il, std::move(name), std::move(in), std::move(out), std::move(attrs)});
}

void Builder::end_half(HalfKind kind, int il, int op_begin, ValueId in, ValueId out) {
  g_->halves.push_back({kind, il, op_begin, static_cast<int>(g_->ops.size()), in, out});
}

int64_t Builder::rows_of(ValueId v) const { return g_->values[static_cast<size_t>(v)].n_cols; }

ValueId Builder::norm(ValueId x, int il, const std::string& name, const Norm& spec) {
  const Rows rows = g_->values[static_cast<size_t>(x)].rows;
  const ValueId y = value(name, rows_of(x), rows);
  op(OpKind::kNorm, il, name, {x}, {y},
     NormAttrs{spec.kind, spec.weight, spec.bias, spec.eps, false});
  return y;
}

ValueId Builder::single_linear(ValueId x, int il, const std::string& name, const Linear& lin,
                               float scale, float softcap) {
  const Rows rows = g_->values[static_cast<size_t>(x)].rows;
  const ValueId y = value(name, g_->weights[static_cast<size_t>(lin.weight)].n(), rows);
  LinearAttrs attrs;
  attrs.items = {{lin.weight, lin.bias}};
  attrs.scale = scale;
  attrs.softcap = softcap;
  op(OpKind::kLinearGroup, il, name, {x}, {y}, std::move(attrs));
  return y;
}

ValueId Builder::add_residual(ValueId residual, ValueId x, int il, const std::string& name,
                              const Norm& post_norm) {
  const ValueId out = value(name + "_residual", rows_of(residual));
  if (post_norm.weight == kNoWeight) {
    op(OpKind::kAdd, il, name + "_residual", {residual, x}, {out}, NoAttrs{});
  } else if (unfused_) {
    const ValueId y = norm(x, il, name + "_post_norm", post_norm);
    op(OpKind::kAdd, il, name + "_residual", {residual, y}, {out}, NoAttrs{});
  } else {
    op(OpKind::kNorm, il, name + "_post_norm", {x, residual}, {out},
       NormAttrs{post_norm.kind, post_norm.weight, post_norm.bias, post_norm.eps, true});
  }
  return out;
}

ValueId Builder::project_back(ValueId residual, ValueId x, int il, const std::string& name,
                              const Linear& lin, const Norm& post_norm) {
  if (unfused_ || post_norm.weight != kNoWeight) {
    const ValueId y = single_linear(x, il, name, lin, 1.0f, 0.0f);
    return add_residual(residual, y, il, name, post_norm);
  }
  const ValueId out = value(name + "_residual", rows_of(residual));
  LinearAttrs attrs;
  attrs.items = {{lin.weight, lin.bias}};
  attrs.epilogue = Epilogue::kResidualAdd;
  op(OpKind::kLinearGroup, il, name, {x, residual}, {out}, std::move(attrs));
  return out;
}

ValueId Builder::input_block(const EmbedAttrs& embed, const Norm& spec) {
  const int begin = begin_half();
  ValueId x = value("embed", g_->n_embd);
  op(OpKind::kEmbed, -1, "embed", {}, {x}, embed);
  if (spec.weight != kNoWeight) x = norm(x, -1, "embed_norm", spec);
  end_half(HalfKind::kInput, -1, begin, kNoValue, x);
  return x;
}

int Builder::add_cache_layer(int il, const AttnSpec& spec) {
  const CacheKind kind = spec.window > 0 ? CacheKind::kWindow : CacheKind::kFull;
  int group = -1;
  for (size_t i = 0; i < g_->cache_groups.size(); ++i) {
    if (g_->cache_groups[i].kind == kind && g_->cache_groups[i].window == spec.window)
      group = static_cast<int>(i);
  }
  if (group < 0) {
    group = static_cast<int>(g_->cache_groups.size());
    g_->cache_groups.push_back({kind, spec.window, {}});
  }
  const int id = static_cast<int>(g_->cache_layers.size());
  g_->cache_layers.push_back({il, group, spec.n_kv_head, spec.head_dim, spec.head_dim_v});
  g_->cache_groups[static_cast<size_t>(group)].cache_layers.push_back(id);
  return id;
}

Builder::Qkv Builder::project_qkv(ValueId y, int il, const std::string& blk, const AttnSpec& spec) {
  if (unfused_) {
    return {single_linear(y, il, blk + "attn_q", spec.q, 1.0f, 0.0f),
            single_linear(y, il, blk + "attn_k", spec.k, 1.0f, 0.0f),
            single_linear(y, il, blk + "attn_v", spec.v, 1.0f, 0.0f)};
  }
  const Qkv out{value(blk + "attn_q", spec.n_head * spec.head_dim),
                value(blk + "attn_k", spec.n_kv_head * spec.head_dim),
                value(blk + "attn_v", spec.n_kv_head * spec.head_dim_v)};
  LinearAttrs attrs;
  attrs.items = {
      {spec.q.weight, spec.q.bias}, {spec.k.weight, spec.k.bias}, {spec.v.weight, spec.v.bias}};
  op(OpKind::kLinearGroup, il, blk + "attn_q|k|v", {y}, {out.q, out.k, out.v}, std::move(attrs));
  return out;
}

ValueId Builder::store_unfused(const Qkv& qkv, int il, const std::string& blk, const AttnSpec& spec,
                               int cache_layer) {
  const auto one = [&](ValueId x, const std::string& name, WeightId weight, int64_t n_head) {
    if (weight != kNoWeight) {
      const ValueId y = value(name + "_norm", rows_of(x));
      op(OpKind::kHeadNorm, il, name + "_norm", {x}, {y},
         HeadNormAttrs{n_head, spec.head_dim, weight, spec.norm.eps});
      x = y;
    }
    if (spec.rope >= 0) {
      const ValueId y = value(name + "_rope", rows_of(x));
      op(OpKind::kRope, il, name + "_rope", {x}, {y}, RopeAttrs{spec.rope, n_head, spec.head_dim});
      x = y;
    }
    return x;
  };
  const ValueId q = one(qkv.q, blk + "attn_q", spec.q_norm, spec.n_head);
  const ValueId k = one(qkv.k, blk + "attn_k", spec.k_norm, spec.n_kv_head);
  op(OpKind::kKvStore, il, blk + "attn_store", {k, qkv.v, q}, {}, KvStoreAttrs{cache_layer});
  return q;
}

ValueId Builder::emit_attn(ValueId x, int il, const AttnSpec& spec) {
  const std::string blk = "blk." + std::to_string(il) + ".";
  const int cache_layer = add_cache_layer(il, spec);
  const ValueId y = norm(x, il, blk + "attn_norm", spec.norm);  // [n_tok, n_embd]
  const Qkv qkv = project_qkv(y, il, blk, spec);
  ValueId q = kNoValue;
  if (unfused_) {
    q = store_unfused(qkv, il, blk, spec, cache_layer);
  } else {
    q = value(blk + "attn_q_rope", spec.n_head * spec.head_dim);
    op(OpKind::kQkNormRopeStore, il, blk + "attn_rope_store", {qkv.q, qkv.k, qkv.v}, {q},
       QkvAttrs{cache_layer, spec.n_head, spec.rope, spec.q_norm, spec.k_norm, spec.norm.eps});
  }
  const ValueId a = value(blk + "attn", spec.n_head * spec.head_dim_v);
  op(OpKind::kAttention, il, blk + "attn", {q}, {a},
     AttentionAttrs{cache_layer, spec.n_head, spec.scale, spec.softcap, spec.window,
                    spec.alibi_slopes});
  return project_back(x, a, il, blk + "attn_output", spec.out, spec.post_norm);
}

ValueId Builder::attn_block(ValueId x, int il, const AttnSpec& spec) {
  const int begin = begin_half();
  const ValueId out = emit_attn(x, il, spec);
  end_half(HalfKind::kMixer, il, begin, x, out);
  return out;
}

/// act(gate(y)) * up(y), or act(up(y)) when there is no gate.
ValueId Builder::glu_values(ValueId y, int il, const std::string& name, const Linear& gate,
                            const Linear& up, GluKind act) {
  const bool gated = gate.weight != kNoWeight;
  const ValueId h = value(name + "_act", g_->weights[static_cast<size_t>(up.weight)].n());
  if (unfused_) {
    std::vector<ValueId> in;
    if (gated) in.push_back(single_linear(y, il, name + "_gate", gate, 1.0f, 0.0f));
    in.push_back(single_linear(y, il, name + "_up", up, 1.0f, 0.0f));
    op(OpKind::kGlu, il, name + "_act", std::move(in), {h}, GluAttrs{act});
    return h;
  }
  LinearAttrs attrs;
  if (gated) attrs.items.push_back({gate.weight, gate.bias});
  attrs.items.push_back({up.weight, up.bias});
  attrs.epilogue = gated ? Epilogue::kGlu : Epilogue::kAct;
  attrs.glu = act;
  op(OpKind::kLinearGroup, il, name + (gated ? "_gate|up" : "_up"), {y}, {h}, std::move(attrs));
  return h;
}

ValueId Builder::emit_mlp(ValueId x, ValueId residual, int il, const MlpSpec& spec) {
  const std::string blk = "blk." + std::to_string(il) + ".";
  const ValueId y = norm(x, il, blk + "ffn_norm", spec.norm);
  const ValueId h = glu_values(y, il, blk + "ffn", spec.gate, spec.up, spec.act);
  return project_back(residual, h, il, blk + "ffn_down", spec.down, spec.post_norm);
}

ValueId Builder::mlp_block(ValueId x, int il, const MlpSpec& spec) {
  const int begin = begin_half();
  const ValueId out = emit_mlp(x, x, il, spec);
  end_half(HalfKind::kFfn, il, begin, x, out);
  return out;
}

ValueId Builder::parallel_block(ValueId x, int il, const AttnSpec& attn, const MlpSpec& mlp) {
  const int begin = begin_half();
  const ValueId out = emit_mlp(x, emit_attn(x, il, attn), il, mlp);
  end_half(HalfKind::kMixer, il, begin, x, out);
  return out;
}

ValueId Builder::moe_block(ValueId x, int il, const MoeSpec& spec) {
  const int begin = begin_half();
  const std::string blk = "blk." + std::to_string(il) + ".";
  const ValueId y = norm(x, il, blk + "ffn_norm", spec.norm);
  const ValueId logits =
      single_linear(y, il, blk + "ffn_router", {spec.router, kNoWeight}, 1.0f, 0.0f);
  const ValueId route = value(blk + "ffn_route", 2 * spec.n_used);
  op(OpKind::kMoeRoute, il, blk + "ffn_route", {logits}, {route},
     MoeRouteAttrs{spec.n_expert, spec.n_used, spec.normalise});
  const int64_t n_ff = g_->weights[static_cast<size_t>(spec.up)].n();
  const ValueId h = value(blk + "ffn_exps_act", spec.n_used * n_ff);
  MoeLinearAttrs glu{spec.gate, spec.up, kNoWeight, spec.act, spec.n_expert, spec.n_used};
  op(OpKind::kMoeGlu, il, blk + "ffn_exps_gate|up", {y, route}, {h}, glu);
  MoeLinearAttrs down{kNoWeight, kNoWeight, spec.down, spec.act, spec.n_expert, spec.n_used};
  ValueId out = value(blk + "ffn_exps_residual", g_->n_embd);
  op(OpKind::kMoeDown, il, blk + "ffn_exps_down", {h, route, x}, {out}, down);
  if (spec.shared_router != kNoWeight) {
    const ValueId gate = single_linear(y, il, blk + "ffn_shared_router",
                                       {spec.shared_router, kNoWeight}, 1.0f, 0.0f);
    const ValueId hs =
        glu_values(y, il, blk + "ffn_shared", spec.shared_gate, spec.shared_up, spec.act);
    const ValueId ys = single_linear(hs, il, blk + "ffn_shared_down", spec.shared_down, 1.0f, 0.0f);
    const ValueId sum = value(blk + "ffn_shared_residual", g_->n_embd);
    op(OpKind::kGateAdd, il, blk + "ffn_shared_residual", {ys, gate, out}, {sum}, NoAttrs{});
    out = sum;
  }
  end_half(HalfKind::kFfn, il, begin, x, out);
  return out;
}

void Builder::output_block(ValueId x, const OutputSpec& spec) {
  const int begin = begin_half();
  const ValueId rows = value("output_rows", rows_of(x), Rows::kLogit);
  op(OpKind::kGatherRows, -1, "output_rows", {x}, {rows}, NoAttrs{});
  const ValueId y = norm(rows, -1, "output_norm", spec.norm);
  const ValueId logits = single_linear(y, -1, "output", spec.output, spec.scale, spec.softcap);
  end_half(HalfKind::kOutput, -1, begin, x, logits);
}

}  // namespace infer::graph
