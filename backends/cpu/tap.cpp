#include <algorithm>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"

/// The activation tap: inputs of matrices, squared and summed. Threads share out columns, never the
/// rows of a sum.
namespace infer::cpu {
namespace {

constexpr int64_t kTapCols = 64;  // of a task; their sums stay in the cache while the rows pass

}  // namespace

void CpuExecutable::plan_taps(runtime::ActivationTap& tap) {
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const graph::Op& op = g_.ops[static_cast<size_t>(i)];
    LinearPlan& lp = linears_[static_cast<size_t>(i - plan_.op_begin)];
    const auto add = [&](graph::WeightId id) {
      const graph::Weight& w = g_.weights[static_cast<size_t>(id)];
      // Parts of a fused tensor share their input: the first stands for all.
      if (w.row_begin != 0) return;
      runtime::ActivationSums* sums = tap.watch(w.tensor, w.k(), w.n_expert());
      if (sums != nullptr) lp.taps.push_back(sums);
    };
    if (const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs)) {
      for (const graph::LinearItem& item : linear->items) add(item.weight);
    } else if (std::holds_alternative<graph::MoeLinearAttrs>(op.attrs)) {
      for_each_weight(op, add);
    }
  }
}

/// Adds the squares of rows row_of(0), row_of(1), ... of columns [begin, end).
template <class RowOf>
void CpuExecutable::tap_columns(runtime::ActivationSums& sums, int64_t mat, int64_t n_row,
                                int64_t begin, int64_t end, RowOf row_of) {
  double* sum = sums.sum_sq.data() + mat * sums.n_k;
  for (int64_t r = 0; r < n_row; ++r) {
    const float* x = row_of(r);
    for (int64_t c = begin; c < end; ++c) {
      const double v = x[c];
      sum[c] += v * v;
    }
  }
}

void CpuExecutable::tap_rows(const LinearPlan& lp, const float* x, int64_t m, Team& team) {
  for (runtime::ActivationSums* sums : lp.taps) {
    const int64_t k = sums->n_k;
    if (team.thread() == 0) sums->n_row[0] += m;
    team.share(ceil_div(k, kTapCols), [&](int64_t i) {
      tap_columns(*sums, 0, m, i * kTapCols, std::min(k, (i + 1) * kTapCols),
                  [&](int64_t r) { return x + r * k; });
    });
  }
}

void CpuExecutable::tap_experts(const LinearPlan& lp, const float* x, int64_t pairs_a_row,
                                Team& team) {
  for (runtime::ActivationSums* sums : lp.taps) {
    const int64_t k = sums->n_k;
    const auto n_expert = static_cast<int64_t>(sums->n_row.size());
    const int64_t n_part = ceil_div(k, kTapCols);
    const auto begin_of = [&](int64_t e) { return moe_begin_[static_cast<size_t>(e)]; };
    for (int64_t e = 0; team.thread() == 0 && e < n_expert; ++e)
      sums->n_row[static_cast<size_t>(e)] += begin_of(e + 1) - begin_of(e);
    team.share(n_expert * n_part, [&](int64_t i) {
      const int64_t e = i / n_part;
      const int64_t col = i % n_part * kTapCols;
      tap_columns(*sums, e, begin_of(e + 1) - begin_of(e), col, std::min(k, col + kTapCols),
                  [&](int64_t r) {
                    const int32_t pair = moe_pairs_[static_cast<size_t>(begin_of(e) + r)];
                    return x + pair / pairs_a_row * k;
                  });
    });
  }
}

}  // namespace infer::cpu
