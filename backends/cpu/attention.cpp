#include <algorithm>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"

/// Attention and what feeds the KV pool. Tasks are (row tile, KV head), and for few rows over a
/// long past also (span): the partials are the same, and are merged in the same order, either way.
namespace infer::cpu {

const float* CpuExecutable::rope_row(int rope, int64_t row) const {
  return rope_tables_[static_cast<size_t>(rope)].data() +
         row * g_.ropes[static_cast<size_t>(rope)].rope_dim;
}

void CpuExecutable::store_row(int cache_layer, int64_t row, const float* q, int64_t n_head,
                              const float* k, const float* v) {
  const runtime::Row& r = step_->rows[static_cast<size_t>(row)];
  const int group = g_.cache_layers[static_cast<size_t>(cache_layer)].group;
  kern::KvStoreArgs args;
  args.pool = pools_[static_cast<size_t>(cache_layer)];
  args.block = step_->tables[static_cast<size_t>(group)].of(
      r.seq)[static_cast<size_t>(r.slot / kern::kBlockTok)];
  args.offset = static_cast<int32_t>(r.slot % kern::kBlockTok);
  args.q_row = q;
  args.n_head = n_head;
  args.k_row = k;
  args.v_row = v;
  k_.kv_store(args);
}

void CpuExecutable::qk_norm_rope_store(const graph::Op& op, Team& team) {
  const auto& a = op.as<graph::QkvAttrs>();
  const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(a.cache_layer)];
  const int64_t hd = layer.head_dim;
  const float* q_norm = weights_.vector(a.q_norm);
  const float* k_norm = weights_.vector(a.k_norm);
  for_rows(team, n_tok_, a.n_head * hd * 4, [&](int64_t r) {
    const auto turn = [&](float* x, int64_t n_head, const float* w) {
      for (int64_t h = 0; w != nullptr && h < n_head; ++h)
        k_.rms_norm(x + h * hd, w, a.eps, hd, x + h * hd);
      if (a.rope < 0) return;
      const graph::Rope& rope = g_.ropes[static_cast<size_t>(a.rope)];
      k_.rope(static_cast<kern::RopeKind>(rope.kind), x, n_head, hd, rope.rope_dim,
              rope_row(a.rope, r));
    };
    const float* q_in = value(op.in[0]) + r * a.n_head * hd;
    float* q = value(op.out[0]) + r * a.n_head * hd;
    if (q != q_in) std::copy_n(q_in, a.n_head * hd, q);
    float* k = value(op.in[1]) + r * layer.n_kv_head * hd;
    turn(q, a.n_head, q_norm);
    turn(k, layer.n_kv_head, k_norm);
    store_row(a.cache_layer, r, q, a.n_head, k,
              value(op.in[2]) + r * layer.n_kv_head * layer.head_dim_v);
  });
}

kern::AttnArgs CpuExecutable::attention_args(const graph::Op& op) {
  const auto& attrs = op.as<graph::AttentionAttrs>();
  const kern::KvPoolView& pool = pools_[static_cast<size_t>(attrs.cache_layer)];
  kern::AttnArgs a;
  a.pool = pool;
  a.q = value(op.in[0]);
  a.q_stride = attrs.n_head * pool.head_dim;
  a.n_head = attrs.n_head;
  a.scale = attrs.scale;
  a.softcap = attrs.softcap;
  a.window = attrs.window;
  a.alibi_slopes = attrs.alibi_slopes.empty() ? nullptr : attrs.alibi_slopes.data();
  a.partial_row_stride = attrs.n_head / pool.n_kv_head * (2 + pool.head_dim_v);
  return a;
}

/// Points `a` at a tile and gives it the spans that its rows see.
void CpuExecutable::tile_args(kern::AttnArgs* a, const graph::AttentionAttrs& attrs,
                              const RowTile& tile, int64_t kv_head) const {
  const int group = g_.cache_layers[static_cast<size_t>(attrs.cache_layer)].group;
  const int64_t first = q_slot_[static_cast<size_t>(tile.begin)];
  const int64_t last = q_slot_[static_cast<size_t>(tile.begin + tile.n - 1)];
  a->block_table = step_->tables[static_cast<size_t>(group)].of(tile.seq).data();
  a->q += tile.begin * a->q_stride;
  a->q_slot = q_slot_.data() + tile.begin;
  a->n_rows = tile.n;
  a->kv_head = kv_head;
  a->span_begin =
      attrs.window > 0 ? std::max<int64_t>(0, first - attrs.window + 1) / kern::kSpanSlots : 0;
  a->span_end = last / kern::kSpanSlots + 1;
}

void CpuExecutable::finish_unit(const graph::Op& op, const kern::AttnArgs& a, const RowTile& tile) {
  const auto& attrs = op.as<graph::AttentionAttrs>();
  const int64_t hd_v = a.pool.head_dim_v;
  const int64_t group = attrs.n_head / a.pool.n_kv_head;
  for (int64_t r = 0; r < tile.n; ++r) {
    const int64_t row = (tile.begin + r) * attrs.n_head + a.kv_head * group;
    for (int64_t h = 0; h < group; ++h) {
      k_.attn_finish(a.partial + r * a.partial_row_stride + h * (2 + hd_v), hd_v, a.pool.v_type,
                     value(op.out[0]) + (row + h) * hd_v);
    }
  }
}

void CpuExecutable::attention(const graph::Op& op, Team& team) {
  const auto& attrs = op.as<graph::AttentionAttrs>();
  const kern::AttnArgs base = attention_args(op);
  const int64_t n_kv_head = base.pool.n_kv_head;
  const auto n_unit = static_cast<int64_t>(tiles_.size()) * n_kv_head;
  int64_t n_span = 1;
  for (const RowTile& tile : tiles_) {
    kern::AttnArgs a = base;
    tile_args(&a, attrs, tile, 0);
    n_span = std::max(n_span, a.span_end - a.span_begin);
  }
  if (n_span > 1 && n_unit < 2 * team.n_threads()) return attention_split(op, base, n_span, team);

  team.share(n_unit, [&](int64_t i) {
    const int64_t unit = n_unit - 1 - i;  // later rows see more: the longest tasks first
    const RowTile& tile = tiles_[static_cast<size_t>(unit / n_kv_head)];
    kern::AttnArgs a = base;
    tile_args(&a, attrs, tile, unit % n_kv_head);
    a.partial = thread_tile(team.thread());
    a.scratch = thread_scratch(team.thread());
    k_.attn_spans(a);
    finish_unit(op, a, tile);
  });
  team.sync();
}

void CpuExecutable::attention_split(const graph::Op& op, const kern::AttnArgs& base, int64_t n_span,
                                    Team& team) {
  const auto& attrs = op.as<graph::AttentionAttrs>();
  const int64_t n_kv_head = base.pool.n_kv_head;
  const int64_t hd_v = base.pool.head_dim_v;
  const int64_t group = attrs.n_head / n_kv_head;
  const auto n_unit = static_cast<int64_t>(tiles_.size()) * n_kv_head;
  const int64_t span_floats = kMinRowTile * base.partial_row_stride;
  auto* partials = split_.as<float>();
  INFER_CHECK(n_unit * n_span * span_floats * 4 <= split_bytes_, "{} units of {} spans", n_unit,
              n_span);
  const auto unit_args = [&](int64_t unit) {
    kern::AttnArgs a = base;
    tile_args(&a, attrs, tiles_[static_cast<size_t>(unit / n_kv_head)], unit % n_kv_head);
    a.partial = partials + unit * n_span * span_floats;
    return a;
  };
  team.share(n_unit * n_span, [&](int64_t i) {
    kern::AttnArgs a = unit_args(i / n_span);
    const int64_t span = a.span_begin + i % n_span;
    if (span >= a.span_end) return;
    a.partial += (span - a.span_begin) * span_floats;
    a.span_begin = span;
    a.span_end = span + 1;
    a.scratch = thread_scratch(team.thread());
    k_.attn_spans(a);
  });
  team.sync();
  team.share(n_unit, [&](int64_t unit) {
    const kern::AttnArgs a = unit_args(unit);
    const RowTile& tile = tiles_[static_cast<size_t>(unit / n_kv_head)];
    for (int64_t r = 0; r < tile.n; ++r) {
      for (int64_t h = 0; h < group; ++h) {
        float* left = a.partial + r * a.partial_row_stride + h * (2 + hd_v);
        for (int64_t s = 1; s < a.span_end - a.span_begin; ++s)
          k_.attn_merge(left, left + s * span_floats, hd_v);
      }
    }
    finish_unit(op, a, tile);
  });
  team.sync();
}

}  // namespace infer::cpu
