#include <algorithm>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"

/// linear_group: activations are prepared once a row for all items that agree on the form, then
/// tasks of (row tile, chunk of outputs) are shared out. The epilogue works on the chunk while it
/// is in the cache.
namespace infer::cpu {
namespace {

constexpr int64_t kTasksPerThread = 16;       // the last one of an op is what the others wait for
constexpr int64_t kMinChunkWork = 8192;       // multiply-adds a task should have
constexpr int64_t kPromptTasksPerThread = 4;  // more of them where a task's rows are many
constexpr int64_t kPromptOutputs = 128;       // of a task where row tiles alone keep threads busy

int64_t chunk_of(const PackedMatrix& w, int n_threads) {
  const int64_t even = ceil_div<int64_t>(w.n, n_threads * kTasksPerThread);
  const int64_t least = ceil_div<int64_t>(kMinChunkWork, w.k);
  // A chunk's output tile stays small, and so do the weights that are swept for each row tile.
  const int64_t most = 256;
  // Panels are computed two at a time.
  return align_up(std::clamp<int64_t>(even, std::min(least, most), most), 2 * w.kernel->n_align);
}

/// Chunks that a task takes. A kernel prepares a row tile before it meets the weights, so where
/// there are many tiles a task has more outputs to share that.
int64_t chunks_of_task(const LinearPlan& lp, int64_t n_tile, int n_threads) {
  int64_t chunk = 0;
  for (const LinearPlan::Item& item : lp.items) chunk = std::max(chunk, item.chunk);
  const int64_t spare = lp.n_task * n_tile / (n_threads * kPromptTasksPerThread);
  return std::clamp<int64_t>(spare, 1, std::max<int64_t>(kPromptOutputs / chunk, 1));
}

}  // namespace

void CpuExecutable::plan_linear(LinearPlan* lp, std::span<const graph::LinearItem> items,
                                int64_t n_row) {
  for (const graph::LinearItem& ref : items) {
    LinearPlan::Item item;
    item.w = weights_.matrix(ref.weight);
    item.bias = weights_.vector(ref.bias);
    const auto known =
        std::find_if(lp->acts.begin(), lp->acts.end(),
                     [&](const LinearPlan::Act& a) { return a.kernel->same_act(*item.w.kernel); });
    item.act = static_cast<int>(known - lp->acts.begin());
    if (known == lp->acts.end()) {
      lp->acts.push_back({item.w.kernel, lp->act_stride});
      lp->act_stride += align_up<int64_t>(item.w.kernel->act_bytes(item.w.k), 64);
    }
    item.chunk = chunk_of(item.w, device_.max_threads());
    item.n_chunk = ceil_div(item.w.n, item.chunk);
    item.tile_n = std::max(item.chunk, kPromptOutputs);
    item.first_task = lp->n_task;
    lp->n_task += item.n_chunk;
    lp->items.push_back(item);
  }
  act_bytes_ = std::max(act_bytes_, lp->act_stride * n_row);
  const int64_t n_own = std::min(n_row, kOwnActElems / lp->items.front().w.k);
  own_act_bytes_ = std::max(own_act_bytes_, lp->act_stride * n_own);
}

/// A task computes the same chunk of gate and up.
void CpuExecutable::pair_chunks(LinearPlan* lp) {
  const int64_t align = std::max(lp->items[0].w.kernel->n_align, lp->items[1].w.kernel->n_align);
  const int64_t chunk = align_up(std::max(lp->items[0].chunk, lp->items[1].chunk), align);
  for (LinearPlan::Item& item : lp->items) {
    item.chunk = chunk;
    item.n_chunk = ceil_div(item.w.n, chunk);
    item.tile_n = std::max(chunk, kPromptOutputs);
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

/// Leaves a norm to the linear_group behind it where nobody else reads its output, nor wants to
/// see it, and where its input still lies untouched while the group writes.
void CpuExecutable::plan_norms() {
  norm_fused_.resize(linears_.size());
  const auto bytes_at = [&](graph::ValueId v) {
    const int64_t rows = g_.values[static_cast<size_t>(v)].rows == graph::Rows::kTok
                             ? plan_.capacity.n_tok
                             : plan_.capacity.n_logit_rows;
    const int64_t begin = plan_.offset_bytes[static_cast<size_t>(v)];
    return std::pair(begin, begin + rows * n_cols(v) * 4);
  };
  for (int i = plan_.op_begin; i + 1 < plan_.op_end; ++i) {
    const graph::Op& norm = g_.ops[static_cast<size_t>(i)];
    const graph::Op& op = g_.ops[static_cast<size_t>(i) + 1];
    LinearPlan& lp = linears_[static_cast<size_t>(i + 1 - plan_.op_begin)];
    if (norm.kind != graph::OpKind::kNorm || norm.as<graph::NormAttrs>().residual_after ||
        op.kind != graph::OpKind::kLinearGroup || op.in[0] != norm.out[0] || !lp.taps.empty() ||
        !lp.lora.empty())
      continue;
    int n_reader = norm.out[0] == plan_.out ? 1 : 0;
    for (int j = i; j < plan_.op_end; ++j) {
      const std::vector<graph::ValueId>& in = g_.ops[static_cast<size_t>(j)].in;
      n_reader += static_cast<int>(std::count(in.begin(), in.end(), norm.out[0]));
    }
    const auto x = bytes_at(norm.in[0]);
    const bool kept = std::none_of(op.out.begin(), op.out.end(), [&](graph::ValueId v) {
      const auto y = bytes_at(v);
      return x.first < y.second && y.first < x.second;
    });
    if (n_reader != 1 || !kept) continue;
    lp.norm = i;
    norm_fused_[static_cast<size_t>(i - plan_.op_begin)] = true;
  }
}

void CpuExecutable::prepare_row(const LinearPlan& lp, const float* x, int64_t k,
                                std::byte* out) const {
  for (const LinearPlan::Act& act : lp.acts) act.kernel->prepare(x, k, out + act.offset);
}

/// Prepares the rows of a linear_group, after the norm before it if that is left to it: few rows by
/// each thread for itself, which saves a barrier, more are shared out.
const std::byte* CpuExecutable::prepare_acts(const graph::Op& op, const LinearPlan& lp,
                                             Team& team) {
  const graph::Op* norm = nullptr;
  if (lp.norm >= 0 && !op_by_op_) norm = &g_.ops[static_cast<size_t>(lp.norm)];
  const graph::ValueId in = norm != nullptr ? norm->in[0] : op.in[0];
  const int64_t m = n_rows(in);
  const int64_t k = n_cols(in);
  const bool own = m * k <= kOwnActElems;
  std::byte* acts = own ? thread_acts(team.thread()) : act_.data();
  const auto prepare = [&](int64_t r) {
    const float* x = value(in) + r * k;
    if (norm != nullptr) {
      float* y = thread_tile(team.thread());
      norm_row(norm->as<graph::NormAttrs>(), x, k, y);
      x = y;
    }
    prepare_row(lp, x, k, acts + r * lp.act_stride);
  };
  if (!own) {
    for_rows(team, m, k, prepare);
    return acts;
  }
  for (int64_t r = 0; r < m; ++r) prepare(r);
  return acts;
}

void CpuExecutable::linear_group(const graph::Op& op, const LinearPlan& lp, Team& team) {
  const int64_t m = n_rows(op.in[0]);
  if (!lp.taps.empty()) tap_rows(lp, value(op.in[0]), m, team);
  const LinearInput in{prepare_acts(op, lp, team), lora_runs(op, lp)};
  if (!in.runs.empty()) lora_project(op, lp, in.runs, team);
  const int64_t n_tile = ceil_div(m, kRowTile);
  // Row tiles vary fastest: the weights of a chunk stay in the cache while all rows pass.
  const int64_t n_part = ceil_div(lp.n_task, chunks_of_task(lp, n_tile, device_.max_threads()));
  team.share(n_part * n_tile, [&](int64_t i) {
    const int64_t tile = i % n_tile, part = i / n_tile;
    const int64_t row = tile * m / n_tile;
    const int64_t rows = (tile + 1) * m / n_tile - row;
    const int64_t begin = part * lp.n_task / n_part;
    const int64_t end = (part + 1) * lp.n_task / n_part;
    if (op.as<graph::LinearAttrs>().epilogue == graph::Epilogue::kGlu) {
      const LinearPlan::Item& gate = lp.items[0];
      glu_task(op, lp, in, row, rows, begin * gate.chunk, std::min(gate.w.n, end * gate.chunk),
               team.thread());
      return;
    }
    for (size_t j = 0; j < lp.items.size(); ++j) {
      const LinearPlan::Item& item = lp.items[j];
      const int64_t first = std::max<int64_t>(begin - item.first_task, 0);
      const int64_t last = std::min(end - item.first_task, item.n_chunk);
      if (first >= last) continue;
      linear_task(op, lp, in, row, rows, j, first * item.chunk,
                  std::min(item.w.n, last * item.chunk), team.thread());
    }
  });
  team.sync();
}

void CpuExecutable::run_kernel(const LinearPlan& lp, const LinearPlan::Item& item,
                               const LinearInput& in, int64_t row, int64_t m, int64_t n_begin,
                               int64_t n_end, float* out, int64_t out_stride, int thread,
                               int64_t expert) {
  kern::LinearArgs args;
  args.w = item.w.data + expert * item.w.expert_bytes;
  args.act = in.acts + row * lp.act_stride + lp.acts[static_cast<size_t>(item.act)].offset;
  args.act_stride = lp.act_stride;
  args.m = m;
  args.n = item.w.n;
  args.k = item.w.k;
  args.n_begin = n_begin;
  args.n_end = n_end;
  args.out = out;
  args.out_stride = out_stride;
  args.scratch = thread_scratch(thread);
  args.l2_bytes = device_.l2_bytes();
  item.w.kernel->run(args);
  for (int64_t r = 0; item.bias != nullptr && r < m; ++r)
    k_.add(out + r * out_stride, item.bias + n_begin, n_end - n_begin, out + r * out_stride);
  if (item.lora_begin != item.lora_end)
    lora_add(lp, item, in.runs, row, m, n_begin, n_end, out, out_stride, thread);
}

void CpuExecutable::linear_task(const graph::Op& op, const LinearPlan& lp, const LinearInput& in,
                                int64_t row, int64_t m, size_t i, int64_t n_begin, int64_t n_end,
                                int thread) {
  const LinearPlan::Item& item = lp.items[i];
  const auto& attrs = op.as<graph::LinearAttrs>();
  const int64_t n = n_end - n_begin;
  float* out = value(op.out[i]) + row * item.w.n + n_begin;
  const bool residual = attrs.epilogue == graph::Epilogue::kResidualAdd;
  // The residual may share the output's memory, so the product goes to a tile of its own first.
  float* y = residual ? thread_tile(thread) : out;
  const int64_t y_stride = residual ? item.tile_n : item.w.n;
  run_kernel(lp, item, in, row, m, n_begin, n_end, y, y_stride, thread);
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

void CpuExecutable::glu_task(const graph::Op& op, const LinearPlan& lp, const LinearInput& in,
                             int64_t row, int64_t m, int64_t n_begin, int64_t n_end, int thread) {
  const LinearPlan::Item& gate_item = lp.items[0];
  const int64_t stride = gate_item.tile_n;
  float* gate = thread_tile(thread);
  float* up = gate + kRowTile * stride;
  run_kernel(lp, gate_item, in, row, m, n_begin, n_end, gate, stride, thread);
  run_kernel(lp, lp.items[1], in, row, m, n_begin, n_end, up, stride, thread);
  float* out = value(op.out[0]) + row * gate_item.w.n + n_begin;
  const auto kind = static_cast<kern::GluKind>(op.as<graph::LinearAttrs>().glu);
  for (int64_t r = 0; r < m; ++r) {
    k_.glu(kind, gate + r * stride, up + r * stride, n_end - n_begin, out + r * gate_item.w.n);
  }
}

}  // namespace infer::cpu
