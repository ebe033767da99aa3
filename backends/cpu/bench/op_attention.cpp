#include <cmath>
#include <numeric>

#include "backends/cpu/bench/op_run.h"
#include "backends/cpu/buffer.h"
#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::cpu::bench {
namespace {

/// As backends/cpu/attention.cpp: tasks are (tile of rows, KV head), and for few of them (span) as
/// well, merged afterwards.
struct Attention {
  const kern::CpuKernels* kernels = nullptr;
  Buffer k, v;  ///< all copies
  Buffer q, out, partial, scratch;
  kern::AttnArgs base;
  std::vector<int32_t> table, q_slot;
  int64_t n_tile = 0, tile_rows = 0, n_span = 0, group = 0, span_floats = 0, scratch_stride = 0;
  bool split = false;

  Result<void> allocate(const OpSpec& s, int n_threads, int n_copy);
  kern::AttnArgs unit_args(int64_t unit, int64_t copy, const OpSpec& s);
  void finish(int64_t unit, const OpSpec& s);
  void call(const OpSpec& s, ThreadPool& pool, int64_t copy);
};

Result<void> Attention::allocate(const OpSpec& s, int n_threads, int n_copy) {
  const int64_t n_block = ceil_div(s.n_kv, kern::kBlockTok);
  for (auto* side : {&k, &v}) {  // on huge pages, as the pools of a model
    const int64_t block =
        side == &k ? kern::k_block_bytes(base.pool) : kern::v_block_bytes(base.pool);
    INFER_ASSIGN(*side, Buffer::allocate(n_copy * n_block * block, "K and V", true));
    fill_plain(side->data(), side->n_bytes());
  }
  const int64_t n_unit = n_tile * s.n_kv_head;
  scratch_stride = align_up<int64_t>(
      kernels->attn_scratch_bytes(s.n_head, s.n_kv_head, s.head_dim, s.head_dim), 64);
  INFER_ASSIGN(q, Buffer::allocate(s.m * s.n_head * s.head_dim * 4, "queries"));
  INFER_ASSIGN(out, Buffer::allocate(s.m * s.n_head * s.head_dim * 4, "output"));
  INFER_ASSIGN(partial, Buffer::allocate(n_unit * n_span * span_floats * 4, "partial results"));
  INFER_ASSIGN(scratch, Buffer::allocate(n_threads * scratch_stride, "scratch"));
  fill_normal(q.as<float>(), s.m * s.n_head * s.head_dim);
  base.q = q.as<float>();
  return {};
}

kern::AttnArgs Attention::unit_args(int64_t unit, int64_t copy, const OpSpec& s) {
  kern::AttnArgs a = base;
  const int64_t row = unit / s.n_kv_head * tile_rows;
  const int64_t first = copy * ceil_div(s.n_kv, kern::kBlockTok);
  a.pool.k = k.data() + first * kern::k_block_bytes(base.pool);
  a.pool.v = v.data() + first * kern::v_block_bytes(base.pool);
  a.kv_head = unit % s.n_kv_head;
  a.n_rows = std::min(tile_rows, s.m - row);
  a.q += row * a.q_stride;
  a.q_slot = q_slot.data() + row;
  a.span_end = a.q_slot[a.n_rows - 1] / kern::kSpanSlots + 1;
  a.partial = partial.as<float>() + unit * n_span * span_floats;
  return a;
}

void Attention::finish(int64_t unit, const OpSpec& s) {
  const kern::AttnArgs a = unit_args(unit, 0, s);
  const int64_t row = unit / s.n_kv_head * tile_rows;
  for (int64_t r = 0; r < a.n_rows; ++r) {
    for (int64_t h = 0; h < group; ++h) {
      float* left = a.partial + r * a.partial_row_stride + h * (2 + s.head_dim);
      for (int64_t span = 1; split && span < a.span_end; ++span)
        kernels->attn_merge(left, left + span * span_floats, s.head_dim);
      kernels->attn_finish(
          left, s.head_dim, a.pool.v_type,
          out.as<float>() + ((row + r) * s.n_head + a.kv_head * group + h) * s.head_dim);
    }
  }
}

void Attention::call(const OpSpec& s, ThreadPool& pool, int64_t copy) {
  const int64_t n_unit = n_tile * s.n_kv_head;
  const int64_t per_unit = split ? n_span : 1;
  pool.for_each(n_unit * per_unit, [&](int64_t task, int thread) {
    kern::AttnArgs a = unit_args(task / per_unit, copy, s);
    a.scratch = scratch.data() + thread * scratch_stride;
    if (split) {
      const int64_t span = task % per_unit;
      if (span >= a.span_end) return;
      a.partial += span * span_floats;
      a.span_begin = span;
      a.span_end = span + 1;
    }
    kernels->attn_spans(a);
    if (!split) finish(task, s);
  });
  for (int64_t unit = 0; split && unit < n_unit; ++unit) finish(unit, s);
}

}  // namespace

Result<OpRun> make_attention(const OpSpec& spec, const OpContext& context) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  if (spec.n_head % spec.n_kv_head != 0)
    return make_error(kCode, "attention: n_kv_head = {} does not divide n_head = {}",
                      spec.n_kv_head, spec.n_head);
  if (spec.m > spec.n_kv)
    return make_error(kCode, "attention: m = {} rows are more than n_kv = {}", spec.m, spec.n_kv);
  const double kv_elems = 2.0 * static_cast<double>(spec.n_kv) *
                          static_cast<double>(spec.n_kv_head) * static_cast<double>(spec.head_dim);
  if (kv_elems > 0x1p34 || static_cast<double>(spec.m) * static_cast<double>(spec.n_head) *
                                   static_cast<double>(spec.head_dim) >
                               0x1p32)
    return make_error(ErrorCode::kOutOfMemory, "attention: n_kv = {}, m = {} are too large",
                      spec.n_kv, spec.m);
  auto op = std::make_shared<Attention>();
  const kern::KvType type = spec.kv_f32 ? kern::KvType::kF32 : kern::KvType::kF16;
  op->kernels = &context.kernels;
  op->group = spec.n_head / spec.n_kv_head;
  op->tile_rows = kern::attn_rows(op->group);
  op->n_tile = ceil_div(spec.m, op->tile_rows);
  op->n_span = ceil_div(spec.n_kv, kern::kSpanSlots);
  op->split = op->n_span > 1 && op->n_tile * spec.n_kv_head < 2 * context.pool.n_threads();
  kern::AttnArgs& base = op->base;
  base.pool.k_type = base.pool.v_type = type;
  base.pool.n_kv_head = spec.n_kv_head;
  base.pool.head_dim = base.pool.head_dim_v = spec.head_dim;
  base.n_head = spec.n_head;
  base.q_stride = spec.n_head * spec.head_dim;
  base.scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  base.partial_row_stride = op->group * (2 + spec.head_dim);
  op->span_floats = op->tile_rows * base.partial_row_stride;
  op->table.resize(static_cast<size_t>(ceil_div(spec.n_kv, kern::kBlockTok)));
  std::iota(op->table.begin(), op->table.end(), 0);
  base.block_table = op->table.data();
  double seen = 0.0;
  for (int64_t r = 0; r < spec.m; ++r) {
    op->q_slot.push_back(static_cast<int32_t>(spec.n_kv - spec.m + r));
    seen += static_cast<double>(op->q_slot.back() + 1);
  }
  const double elem_bytes = spec.kv_f32 ? 4.0 : 2.0;
  OpRun run;
  run.n_copy = copies_of(static_cast<int64_t>(kv_elems * elem_bytes), spec, context);
  INFER_TRY(op->allocate(spec, context.pool.n_threads(), run.n_copy));
  run.bytes = kv_elems * elem_bytes + 8.0 * static_cast<double>(spec.m * base.q_stride);
  run.ops = 4.0 * seen * static_cast<double>(spec.n_head) * static_cast<double>(spec.head_dim);
  run.call = [op = op.get(), spec, &pool = context.pool](int64_t copy) {
    op->call(spec, pool, copy);
  };
  run.data = std::move(op);
  return run;
}

}  // namespace infer::cpu::bench
