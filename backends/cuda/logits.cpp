#include <algorithm>
#include <cmath>

#include "backends/cuda/executable.h"
#include "core/base/check.h"
#include "core/base/checked.h"

/// What comes back of a step: of each wanted row the stats and the best logits, and whole rows only
/// where somebody asked for them. More wanted rows than the arena holds logits of take turns.
namespace infer::cuda {

size_t CudaExecutable::n_turn(const Flight& f) const {
  if (!has_tail()) return 0;
  return ceil_div(f.facts.want.size(), static_cast<size_t>(plan_.capacity.n_logit_rows));
}

void CudaExecutable::plan_turn(Flight& f, size_t turn) const {
  const auto rows = static_cast<size_t>(plan_.capacity.n_logit_rows);
  const size_t begin = turn * rows;
  const size_t n = std::min(rows, f.facts.want.size() - std::min(begin, f.facts.want.size()));
  f.next_turn = turn;
  f.shape.turn = static_cast<int>(turn);
  // A bucket's rows are all taken along, so that the launches do not depend on the wanted ones.
  const bool whole_bucket =
      f.shape.is_decode && n_turn(f) <= 1 && f.shape.m <= static_cast<int>(rows);
  f.shape.m_tail = whole_bucket ? f.shape.m : static_cast<int>(n);
  f.shape.n_top = 0;
  f.whole_rows = false;
  for (size_t i = begin; i < begin + n; ++i) {
    const runtime::Row& row = f.step->rows[static_cast<size_t>(f.facts.want[i])];
    if (row.want == runtime::Want::kLogits) f.whole_rows = true;
    if (row.n_top > 0) f.shape.n_top = static_cast<int>(std::min<int64_t>(kMaxTop, g_.n_vocab));
  }
}

Result<void> CudaExecutable::enqueue_results(Flight& f) {
  if (n_turn(f) == 0) return {};
  const int64_t n_bytes = results_view(nullptr, f.shape.m_tail, f.shape.n_top).n_bytes;
  INFER_TRY(copy(f.results.data(), stage_->results(), n_bytes, cudaMemcpyDeviceToHost));
  if (!f.whole_rows) return {};
  const auto rows = static_cast<size_t>(plan_.capacity.n_logit_rows);
  const size_t n = std::min(rows, f.facts.want.size() - f.next_turn * rows);
  if (counters_ != nullptr) counters_->n_whole_rows += static_cast<int64_t>(n);
  return copy(f.logits.data(), stage_->value(plan_.out), static_cast<int64_t>(n) * g_.n_vocab * 4,
              cudaMemcpyDeviceToHost);
}

Result<void> CudaExecutable::finish(Flight& f) {
  INFER_TRY(remember(f.done().wait()));
  for (;;) {
    if (f.next_turn >= n_turn(f)) return {};
    INFER_TRY(deliver(f));
    plan_turn(f, f.next_turn + 1);
    if (f.next_turn >= n_turn(f)) return {};
    const auto turn = [&]() -> Result<void> {
      INFER_TRY(stage_->run(plan_.tail_begin, plan_.op_end, f.shape));
      INFER_TRY(stage_->sample_rows(f.shape));
      INFER_TRY(enqueue_results(f));
      INFER_TRY(f.done().record(stage_->stream()));
      return f.done().wait();
    };
    INFER_TRY(remember(turn()));
  }
}

Result<void> CudaExecutable::deliver(Flight& f) {
  const auto rows = static_cast<size_t>(plan_.capacity.n_logit_rows);
  const std::span<const int32_t> want(f.facts.want);
  const std::span<const int32_t> turn =
      want.subspan(f.next_turn * rows, std::min(rows, want.size() - f.next_turn * rows));
  const int n_top = f.shape.n_top;
  const ResultsView view = results_view(f.results.data(), f.shape.m_tail, n_top);
  for (size_t r = 0; r < turn.size(); ++r) {
    const RowStats& s = view.stats[r];
    if (s.has_nan != 0) return remember(diagnose(f));
    stats_[r] = {s.max, s.argmax, s.sum_exp};
  }
  if (f.io.sink == nullptr) return {};
  const auto n = static_cast<int64_t>(turn.size());
  runtime::LogitTile tile{turn, {}, std::span(stats_).first(turn.size())};
  if (f.whole_rows) tile.logits = {f.logits.as<float>(), n, g_.n_vocab, g_.n_vocab};
  tile.top_logits = {view.top_logit, n, n_top, n_top};
  tile.top_ids = {view.top_id, n, n_top, n_top};
  f.io.sink->on_logits(tile);
  return {};
}

Result<bool> CudaExecutable::is_finite(graph::ValueId v, int64_t n_row) {
  std::vector<float> x(static_cast<size_t>(n_row * g_.values[static_cast<size_t>(v)].n_cols));
  INFER_TRY(
      copy(x.data(), stage_->value(v), static_cast<int64_t>(x.size()) * 4, cudaMemcpyDeviceToHost));
  INFER_TRY(stage_->stream().wait());
  return std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); });
}

Error CudaExecutable::diagnose(Flight& f) {
  constexpr ErrorCode kCode = ErrorCode::kNumeric;
  if (counters_ != nullptr) ++counters_->n_eager;
  const auto rows = static_cast<size_t>(plan_.capacity.n_logit_rows);
  const auto n_want =
      static_cast<int64_t>(std::min(rows, f.facts.want.size() - f.next_turn * rows));
  const auto again = [&]() -> Result<std::string> {
    INFER_TRY(copy_in(f));  // a later step's may be there
    if (plan_.in != graph::kNoValue) {
      INFER_ASSIGN(const bool finite, is_finite(plan_.in, f.facts.n_row));
      if (!finite) return std::string("NaN in the residual stream that came from the stage before");
    }
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      INFER_TRY(stage_->run(i, i + 1, f.shape));
      if (!stage_->has_output(i)) continue;
      const graph::Op& op = g_.ops[static_cast<size_t>(i)];
      for (const graph::ValueId v : op.out) {
        const bool tok = g_.values[static_cast<size_t>(v)].rows == graph::Rows::kTok;
        INFER_ASSIGN(const bool finite, is_finite(v, tok ? f.facts.n_row : n_want));
        if (!finite)
          return fmt::format("NaN or infinity in the output of layer {}, op {} '{}'", op.il,
                             name_of(op.kind), op.name);
      }
    }
    return std::string("NaN in the logits, not found again when the step was repeated");
  };
  Result<std::string> found = again();
  if (!found.ok()) return std::move(found).error();
  return make_error(kCode, "{}", *found);
}

}  // namespace infer::cuda
