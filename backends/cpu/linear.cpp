#include <algorithm>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"

/// linear_group: activations are prepared once a row for all items that agree on the form, then
/// tasks of (row tile, chunk of outputs) are shared out. The epilogue works on the chunk while it
/// is in the cache.
namespace infer::cpu {
namespace {

constexpr int64_t kTasksPerThread = 4;   // of one row; enough to even out threads of unequal speed
constexpr int64_t kMinChunkWork = 8192;  // multiply-adds a task should have

int64_t chunk_of(const PackedMatrix& w, int n_threads) {
  const int64_t even = ceil_div<int64_t>(w.n, n_threads * kTasksPerThread);
  const int64_t least = ceil_div<int64_t>(kMinChunkWork, w.k);
  // A chunk's output tile stays small, and so do the weights that are swept for each row tile.
  const int64_t most = 256;
  return align_up(std::clamp<int64_t>(even, std::min(least, most), most), w.kernel->n_align);
}

}  // namespace

void CpuExecutable::plan_linear(LinearPlan* lp, std::span<const graph::LinearItem> items,
                                int64_t n_row) {
  int64_t act_bytes = 0;
  for (const graph::LinearItem& ref : items) {
    LinearPlan::Item item;
    item.w = weights_.matrix(ref.weight);
    item.bias = weights_.vector(ref.bias);
    const auto known =
        std::find_if(lp->acts.begin(), lp->acts.end(),
                     [&](const LinearPlan::Act& a) { return a.kernel->same_act(*item.w.kernel); });
    item.act = static_cast<int>(known - lp->acts.begin());
    if (known == lp->acts.end()) {
      const int64_t stride = align_up<int64_t>(item.w.kernel->act_bytes(item.w.k), 64);
      lp->acts.push_back({item.w.kernel, stride, act_bytes});
      act_bytes += stride * n_row;
    }
    item.chunk = chunk_of(item.w, device_.max_threads());
    item.n_chunk = ceil_div(item.w.n, item.chunk);
    item.first_task = lp->n_task;
    lp->n_task += item.n_chunk;
    lp->items.push_back(item);
  }
  act_bytes_ = std::max(act_bytes_, act_bytes);
}

/// A task computes the same chunk of gate and up.
void CpuExecutable::pair_chunks(LinearPlan* lp) {
  const int64_t align = std::max(lp->items[0].w.kernel->n_align, lp->items[1].w.kernel->n_align);
  const int64_t chunk = align_up(std::max(lp->items[0].chunk, lp->items[1].chunk), align);
  for (LinearPlan::Item& item : lp->items) {
    item.chunk = chunk;
    item.n_chunk = ceil_div(item.w.n, chunk);
  }
  lp->n_task = lp->items[0].n_chunk;
}

void CpuExecutable::plan_linears() {
  linears_.resize(static_cast<size_t>(plan_.op_end - plan_.op_begin));
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const graph::Op& op = g_.ops[static_cast<size_t>(i)];
    LinearPlan& lp = linears_[static_cast<size_t>(i - plan_.op_begin)];
    if (const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs)) {
      const bool tok = g_.values[static_cast<size_t>(op.in[0])].rows == graph::Rows::kTok;
      plan_linear(&lp, linear->items, tok ? plan_.capacity.n_tok : plan_.capacity.n_logit_rows);
      if (linear->epilogue == graph::Epilogue::kGlu) pair_chunks(&lp);
    } else if (const auto* moe = std::get_if<graph::MoeLinearAttrs>(&op.attrs)) {
      std::vector<graph::LinearItem> items;
      for_each_weight(op, [&](graph::WeightId id) { items.push_back({id, graph::kNoWeight}); });
      plan_linear(&lp, items, plan_.capacity.n_tok * moe->n_used);
      if (items.size() == 2) pair_chunks(&lp);
    }
  }
}

void CpuExecutable::prepare_acts(const float* x, int64_t m, int64_t k, const LinearPlan& lp) {
  for (const LinearPlan::Act& act : lp.acts) {
    std::byte* out = act_.data() + act.offset;
    for_rows(m, k, [&](int64_t r) { act.kernel->prepare(x + r * k, k, out + r * act.stride); });
  }
}

void CpuExecutable::linear_group(const graph::Op& op, const LinearPlan& lp) {
  const int64_t m = n_rows(op.in[0]);
  if (!lp.taps.empty()) tap_rows(lp, value(op.in[0]), m);
  prepare_acts(value(op.in[0]), m, n_cols(op.in[0]), lp);
  op_runs_ = lora_runs(op, lp);
  if (!op_runs_.empty()) lora_project(op, lp);
  const int64_t n_tile = ceil_div(m, kRowTile);
  // Row tiles vary fastest: the weights of a chunk stay in the cache while all rows pass.
  pool_->for_each(lp.n_task * n_tile, [&](int64_t i, int thread) {
    const int64_t row = i % n_tile * kRowTile;
    const int64_t rows = std::min(kRowTile, m - row);
    const int64_t task = i / n_tile;
    if (op.as<graph::LinearAttrs>().epilogue == graph::Epilogue::kGlu) {
      const LinearPlan::Item& gate = lp.items[0];
      glu_task(op, lp, row, rows, task * gate.chunk, std::min(gate.w.n, (task + 1) * gate.chunk),
               thread);
    } else {
      linear_task(op, lp, row, rows, task, thread);
    }
  });
}

void CpuExecutable::run_kernel(const LinearPlan& lp, const LinearPlan::Item& item, int64_t row,
                               int64_t m, int64_t n_begin, int64_t n_end, float* out,
                               int64_t out_stride, int thread, int64_t expert) {
  const LinearPlan::Act& act = lp.acts[static_cast<size_t>(item.act)];
  kern::LinearArgs args;
  args.w = item.w.data + expert * item.w.expert_bytes;
  args.act = act_.data() + act.offset + row * act.stride;
  args.act_stride = act.stride;
  args.m = m;
  args.n = item.w.n;
  args.k = item.w.k;
  args.n_begin = n_begin;
  args.n_end = n_end;
  args.out = out;
  args.out_stride = out_stride;
  args.scratch = thread_scratch(thread);
  item.w.kernel->run(args);
  for (int64_t r = 0; item.bias != nullptr && r < m; ++r)
    k_.add(out + r * out_stride, item.bias + n_begin, n_end - n_begin, out + r * out_stride);
  if (item.lora_begin != item.lora_end)
    lora_add(lp, item, row, m, n_begin, n_end, out, out_stride, thread);
}

void CpuExecutable::linear_task(const graph::Op& op, const LinearPlan& lp, int64_t row, int64_t m,
                                int64_t task, int thread) {
  size_t i = 0;
  while (i + 1 < lp.items.size() && task >= lp.items[i + 1].first_task) ++i;
  const LinearPlan::Item& item = lp.items[i];
  const auto& attrs = op.as<graph::LinearAttrs>();
  const int64_t n_begin = (task - item.first_task) * item.chunk;
  const int64_t n_end = std::min(item.w.n, n_begin + item.chunk);
  const int64_t n = n_end - n_begin;
  float* out = value(op.out[i]) + row * item.w.n + n_begin;
  const bool residual = attrs.epilogue == graph::Epilogue::kResidualAdd;
  // The residual may share the output's memory, so the product goes to a tile of its own first.
  float* y = residual ? thread_tile(thread) : out;
  const int64_t y_stride = residual ? item.chunk : item.w.n;
  run_kernel(lp, item, row, m, n_begin, n_end, y, y_stride, thread);
  const float* r_in = residual ? value(op.in[1]) + row * item.w.n + n_begin : nullptr;
  for (int64_t r = 0; r < m; ++r) {
    float* y_row = y + r * y_stride;
    if (attrs.scale != 1.0f) k_.scale(y_row, attrs.scale, n, y_row);
    if (attrs.softcap > 0.0f) k_.softcap(y_row, attrs.softcap, n, y_row);
    if (attrs.epilogue == graph::Epilogue::kAct) {
      k_.glu(static_cast<kern::GluKind>(attrs.glu), y_row, nullptr, n, y_row);
    }
    if (residual) k_.add(r_in + r * item.w.n, y_row, n, out + r * item.w.n);
  }
}

void CpuExecutable::glu_task(const graph::Op& op, const LinearPlan& lp, int64_t row, int64_t m,
                             int64_t n_begin, int64_t n_end, int thread) {
  const LinearPlan::Item& gate_item = lp.items[0];
  const int64_t stride = gate_item.chunk;
  float* gate = thread_tile(thread);
  float* up = gate + kRowTile * stride;
  run_kernel(lp, gate_item, row, m, n_begin, n_end, gate, stride, thread);
  run_kernel(lp, lp.items[1], row, m, n_begin, n_end, up, stride, thread);
  float* out = value(op.out[0]) + row * gate_item.w.n + n_begin;
  const auto kind = static_cast<kern::GluKind>(op.as<graph::LinearAttrs>().glu);
  for (int64_t r = 0; r < m; ++r) {
    k_.glu(kind, gate + r * stride, up + r * stride, n_end - n_begin, out + r * gate_item.w.n);
  }
}

}  // namespace infer::cpu
