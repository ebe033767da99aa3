#include <algorithm>
#include <cmath>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"
#include "core/base/error.h"

/// Adapters: y += scale * B (A x) on the rows that use them, with x as the op got it (f32, whatever
/// form the weight's own kernel takes) and the f32 kernels. A x is computed once a row before the
/// tasks of the op, B (A x) chunk by chunk inside them, after the bias. A row's adapters are added
/// one after the other in the order of its mix, whoever else is in the step; rows without adapters
/// are not touched.
namespace infer::cpu {
namespace {

/// Appends row i of mix `mix` to the runs.
void add_row(std::vector<LoraRun>* runs, int32_t i, int32_t mix) {
  if (mix < 0) return;
  if (!runs->empty()) {
    LoraRun& last = runs->back();
    if (last.mix == mix && last.begin + last.n == i && last.n < kRowTile) {
      ++last.n;
      return;
    }
  }
  runs->push_back({i, 1, mix});
}

const float* scale_in(std::span<const runtime::AdapterUse> mix, int adapter) {
  for (const runtime::AdapterUse& use : mix) {
    if (use.adapter == adapter) return &use.scale;
  }
  return nullptr;
}

const kern::LinearKernel& f32_kernel(const kern::CpuKernels& k) {
  return k.linear[static_cast<size_t>(kern::ActMode::kPrecise)][static_cast<size_t>(DType::kF32)];
}

}  // namespace

Result<const float*> CpuExecutable::load_half(const TensorView& view, const std::string& where,
                                              const char* half) {
  const auto n_bytes = checked_mul<int64_t>(view.n_elem(), sizeof(float));
  const std::string name = where + half;
  if (!n_bytes) return make_error(ErrorCode::kOutOfMemory, "{} is too large", name);
  INFER_ASSIGN(Buffer buffer,
               Buffer::allocate(*n_bytes, name.c_str(), device_.memory().huge_pages));
  auto* out = buffer.as<float>();
  k_.decode_row[static_cast<size_t>(view.type)](view.data, view.n_elem(), out);
  for (int64_t i = 0; i < view.n_elem(); ++i) {
    if (!std::isfinite(out[i]))
      return make_error(ErrorCode::kCorrupt, "{}[{}] = {}: not a finite number", name, i, out[i]);
  }
  lora_weights_.push_back(std::move(buffer));
  return out;
}

Result<void> CpuExecutable::load_adapters(const runtime::CompileOptions& /*options*/) {
  if (g_.n_adapter == 0) return {};
  const kern::LinearKernel& f32 = f32_kernel(k_);
  int64_t x_bytes = 0;
  int64_t h_bytes = 0;
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const graph::Op& op = g_.ops[static_cast<size_t>(i)];
    const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs);
    if (linear == nullptr) continue;
    LinearPlan& lp = linears_[static_cast<size_t>(i - plan_.op_begin)];
    const bool tok = g_.values[static_cast<size_t>(op.in[0])].rows == graph::Rows::kTok;
    const int64_t n_row = tok ? plan_.capacity.n_tok : plan_.capacity.n_logit_rows;
    int64_t op_h_bytes = 0;
    for (size_t j = 0; j < linear->items.size(); ++j) {
      LinearPlan::Item& item = lp.items[j];
      item.lora_begin = item.lora_end = lp.lora.size();
      const int set = linear->items[j].adapter;
      if (set < 0) continue;
      for (const graph::LowRank& add : g_.item_adapters[static_cast<size_t>(set)]) {
        LinearPlan::Lora lora{.adapter = add.adapter, .rank = add.rank(), .scale = add.scale};
        INFER_ASSIGN(lora.a, load_half(add.a, add.where, ".lora_a'"));
        INFER_ASSIGN(lora.b, load_half(add.b, add.where, ".lora_b'"));
        lora.h_stride = align_up<int64_t>(f32.act_bytes(lora.rank), 64);
        lora.h_offset = op_h_bytes;
        op_h_bytes += lora.h_stride * n_row;
        lora_rank_ = std::max(lora_rank_, lora.rank);
        kernel_scratch_bytes_ = std::max(
            {kernel_scratch_bytes_, f32.scratch_bytes(item.w.k), f32.scratch_bytes(lora.rank)});
        lp.lora.push_back(lora);
      }
      item.lora_end = lp.lora.size();
      x_bytes = std::max(x_bytes, align_up<int64_t>(f32.act_bytes(item.w.k), 64) * n_row);
    }
    h_bytes = std::max(h_bytes, op_h_bytes);
  }
  INFER_ASSIGN(lora_x_, Buffer::allocate(x_bytes, "inputs of adapters"));
  INFER_ASSIGN(lora_h_, Buffer::allocate(h_bytes, "inner rows of adapters"));
  token_runs_.reserve(static_cast<size_t>(plan_.capacity.n_tok));
  turn_runs_.reserve(static_cast<size_t>(plan_.capacity.n_logit_rows));
  return {};
}

void CpuExecutable::find_token_runs() {
  token_runs_.clear();
  if (g_.n_adapter == 0) return;
  for (int32_t i = 0; i < n_tok_; ++i)
    add_row(&token_runs_, i, step_->rows[static_cast<size_t>(i)].adapter);
}

void CpuExecutable::find_turn_runs() {
  turn_runs_.clear();
  if (g_.n_adapter == 0) return;
  for (size_t i = 0; i < turn_.size(); ++i) {
    add_row(&turn_runs_, static_cast<int32_t>(i),
            step_->rows[static_cast<size_t>(turn_[i])].adapter);
  }
}

std::span<const LoraRun> CpuExecutable::lora_runs(const graph::Op& op, const LinearPlan& lp) const {
  if (lp.lora.empty()) return {};
  const bool tok = g_.values[static_cast<size_t>(op.in[0])].rows == graph::Rows::kTok;
  return tok ? token_runs_ : turn_runs_;
}

/// A x of all rows that use adapters, for all items of the op.
void CpuExecutable::lora_project(const graph::Op& op, const LinearPlan& lp,
                                 std::span<const LoraRun> runs, Team& team) {
  const kern::LinearKernel& f32 = f32_kernel(k_);
  const int64_t k = n_cols(op.in[0]);
  const int64_t x_stride = align_up<int64_t>(f32.act_bytes(k), 64);
  const float* x = value(op.in[0]);
  const auto n_run = static_cast<int64_t>(runs.size());
  team.share(n_run, [&](int64_t task) {
    const LoraRun& run = runs[static_cast<size_t>(task)];
    for (int64_t r = run.begin; r < run.begin + run.n; ++r)
      f32.prepare(x + r * k, k, lora_x_.data() + r * x_stride);
  });
  team.sync();
  const auto n_lora = static_cast<int64_t>(lp.lora.size());
  team.share(n_run * n_lora, [&](int64_t task) {
    const LoraRun& run = runs[static_cast<size_t>(task / n_lora)];
    const LinearPlan::Lora& lora = lp.lora[static_cast<size_t>(task % n_lora)];
    if (scale_in(step_->mix(run.mix), lora.adapter) == nullptr) return;
    float* h = thread_tile(team.thread());
    kern::LinearArgs args;
    args.w = reinterpret_cast<const std::byte*>(lora.a);
    args.act = lora_x_.data() + run.begin * x_stride;
    args.act_stride = x_stride;
    args.m = run.n;
    args.n = args.n_end = args.out_stride = lora.rank;
    args.k = k;
    args.out = h;
    args.scratch = thread_scratch(team.thread());
    args.l2_bytes = device_.l2_bytes();
    f32.run(args);
    std::byte* to = lora_h_.data() + lora.h_offset + run.begin * lora.h_stride;
    for (int64_t r = 0; r < run.n; ++r)
      f32.prepare(h + r * lora.rank, lora.rank, to + r * lora.h_stride);
  });
  team.sync();
}

/// Outputs [n_begin, n_end) of rows [row, row + m), one row tile at most.
void CpuExecutable::lora_add(const LinearPlan& lp, const LinearPlan::Item& item,
                             std::span<const LoraRun> runs, int64_t row, int64_t m, int64_t n_begin,
                             int64_t n_end, float* y, int64_t y_stride, int thread) {
  const kern::LinearKernel& f32 = f32_kernel(k_);
  const int64_t n = n_end - n_begin;
  float* add = thread_tile(thread) + 2 * kRowTile * item.tile_n;
  const auto first =
      std::lower_bound(runs.begin(), runs.end(), row,
                       [](const LoraRun& a, int64_t at) { return a.begin + a.n <= at; });
  for (auto run = first; run != runs.end() && run->begin < row + m; ++run) {
    const int64_t begin = std::max<int64_t>(run->begin, row);
    const int64_t n_row = std::min<int64_t>(run->begin + run->n, row + m) - begin;
    const auto mix = step_->mix(run->mix);
    for (size_t i = item.lora_begin; i < item.lora_end; ++i) {
      const LinearPlan::Lora& lora = lp.lora[i];
      const float* scale = scale_in(mix, lora.adapter);
      if (scale == nullptr) continue;
      kern::LinearArgs args;
      args.w = reinterpret_cast<const std::byte*>(lora.b);
      args.act = lora_h_.data() + lora.h_offset + begin * lora.h_stride;
      args.act_stride = lora.h_stride;
      args.m = n_row;
      args.n = item.w.n;
      args.k = lora.rank;
      args.n_begin = n_begin;
      args.n_end = n_end;
      args.out = add;
      args.out_stride = n;
      args.scratch = thread_scratch(thread);
      args.l2_bytes = device_.l2_bytes();
      f32.run(args);
      for (int64_t r = 0; r < n_row; ++r) {
        float* y_row = y + (begin - row + r) * y_stride;
        k_.scale(add + r * n, lora.scale * *scale, n, add + r * n);
        k_.add(y_row, add + r * n, n, y_row);
      }
    }
  }
}

}  // namespace infer::cpu
