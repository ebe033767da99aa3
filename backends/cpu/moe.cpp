#include <algorithm>
#include <cmath>

#include "backends/cpu/executable.h"
#include "core/base/checked.h"

/// Mixture of experts: rows are grouped by expert, so that only the weights of experts in use are
/// read, each once a step. A row's experts are added in the order of its route (likeliest first),
/// whoever else is in the step.
namespace infer::cpu {

void CpuExecutable::moe_route(const graph::Op& op, Team& team) {
  const auto& a = op.as<graph::MoeRouteAttrs>();
  for_rows(team, n_tok_, a.n_expert * (1 + a.n_used), [&](int64_t r) {
    float* p =
        value(op.in[0]) + r * a.n_expert;  // logits, then probabilities; nobody reads them again
    float* ids = value(op.out[0]) + r * 2 * a.n_used;
    float* weights = ids + a.n_used;
    const float max = *std::max_element(p, p + a.n_expert);
    double sum = 0.0;
    for (int64_t e = 0; e < a.n_expert; ++e) sum += std::exp(static_cast<double>(p[e]) - max);
    for (int64_t e = 0; e < a.n_expert; ++e)
      p[e] = static_cast<float>(std::exp(static_cast<double>(p[e]) - max) / sum);
    double used = 0.0;
    for (int64_t j = 0; j < a.n_used; ++j) {
      // A NaN never compares greater: it stays in the weights of expert 0 and reaches the logits
      // from there.
      const auto best = std::max_element(p, p + a.n_expert) - p;
      ids[j] = static_cast<float>(best);
      weights[j] = p[best];
      used += p[best];
      p[best] = -1.0f;
    }
    if (!a.normalise) return;
    for (int64_t j = 0; j < a.n_used; ++j) weights[j] = static_cast<float>(weights[j] / used);
  });
}

void CpuExecutable::sort_pairs(int64_t n_used, const float* route) {
  const int64_t n_pair = n_tok_ * n_used;
  const auto expert_of = [&](int64_t pair) {
    return static_cast<size_t>(route[pair / n_used * 2 * n_used + pair % n_used]);
  };
  std::fill(moe_begin_.begin(), moe_begin_.end(), 0);
  for (int64_t pair = 0; pair < n_pair; ++pair) ++moe_begin_[expert_of(pair) + 1];
  for (size_t e = 1; e < moe_begin_.size(); ++e) moe_begin_[e] += moe_begin_[e - 1];
  for (int64_t pair = 0; pair < n_pair; ++pair) {
    moe_pairs_[static_cast<size_t>(moe_begin_[expert_of(pair)]++)] = static_cast<int32_t>(pair);
  }
  for (size_t e = moe_begin_.size() - 1; e > 0; --e) moe_begin_[e] = moe_begin_[e - 1];
  moe_begin_[0] = 0;
}

LinearInput CpuExecutable::moe_gather(const float* x, int64_t k, int64_t n_used, bool per_choice,
                                      const float* route, const LinearPlan& lp, Team& team) {
  team.once([&] { sort_pairs(n_used, route); });
  for_rows(team, n_tok_ * n_used, k, [&](int64_t i) {
    const int64_t pair = moe_pairs_[static_cast<size_t>(i)];
    prepare_row(lp, x + (per_choice ? pair : pair / n_used) * k, k,
                act_.data() + i * lp.act_stride);
  });
  return {act_.data(), {}};
}

void CpuExecutable::moe_glu(const graph::Op& op, const LinearPlan& lp, Team& team) {
  const auto& a = op.as<graph::MoeLinearAttrs>();
  const LinearInput in = moe_gather(value(op.in[0]), n_cols(op.in[0]), a.n_used,
                                    /*per_choice=*/false, value(op.in[1]), lp, team);
  if (!lp.taps.empty()) tap_experts(lp, value(op.in[0]), a.n_used, team);
  const LinearPlan::Item& gate_item = lp.items[0];
  const int64_t n_ff = gate_item.w.n;
  float* out = value(op.out[0]);
  team.share(a.n_expert * lp.n_task, [&](int64_t i) {
    const int64_t e = i / lp.n_task;
    const int64_t n_begin = i % lp.n_task * gate_item.chunk;
    const int64_t n = std::min(n_ff - n_begin, gate_item.chunk);
    const int64_t end = moe_begin_[static_cast<size_t>(e) + 1];
    float* gate = thread_tile(team.thread());
    float* up = gate + kRowTile * gate_item.chunk;
    for (int64_t row = moe_begin_[static_cast<size_t>(e)]; row < end; row += kRowTile) {
      const int64_t m = std::min(kRowTile, end - row);
      run_kernel(lp, gate_item, in, row, m, n_begin, n_begin + n, gate, gate_item.chunk,
                 team.thread(), e);
      run_kernel(lp, lp.items[1], in, row, m, n_begin, n_begin + n, up, gate_item.chunk,
                 team.thread(), e);
      for (int64_t r = 0; r < m; ++r) {
        k_.glu(static_cast<kern::GluKind>(a.glu), gate + r * gate_item.chunk,
               up + r * gate_item.chunk, n,
               out + moe_pairs_[static_cast<size_t>(row + r)] * n_ff + n_begin);
      }
    }
  });
  team.sync();
}

void CpuExecutable::moe_down(const graph::Op& op, const LinearPlan& lp, Team& team) {
  const auto& a = op.as<graph::MoeLinearAttrs>();
  const float* route = value(op.in[1]);
  const LinearPlan::Item& item = lp.items[0];
  const LinearInput in =
      moe_gather(value(op.in[0]), item.w.k, a.n_used, /*per_choice=*/true, route, lp, team);
  if (!lp.taps.empty()) tap_experts(lp, value(op.in[0]), 1, team);
  const int64_t n_embd = item.w.n;
  auto* y = moe_out_.as<float>();  // in the order of moe_pairs_' values: row, then choice
  team.share(a.n_expert * lp.n_task, [&](int64_t i) {
    const int64_t e = i / lp.n_task;
    const int64_t n_begin = i % lp.n_task * item.chunk;
    const int64_t n = std::min(n_embd - n_begin, item.chunk);
    const int64_t end = moe_begin_[static_cast<size_t>(e) + 1];
    float* tile = thread_tile(team.thread());
    for (int64_t row = moe_begin_[static_cast<size_t>(e)]; row < end; row += kRowTile) {
      const int64_t m = std::min(kRowTile, end - row);
      run_kernel(lp, item, in, row, m, n_begin, n_begin + n, tile, item.chunk, team.thread(), e);
      for (int64_t r = 0; r < m; ++r) {
        std::copy_n(tile + r * item.chunk, n,
                    y + moe_pairs_[static_cast<size_t>(row + r)] * n_embd + n_begin);
      }
    }
  });
  team.sync();
  for_rows(team, n_tok_, n_embd * a.n_used, [&](int64_t r) {
    const float* weights = route + r * 2 * a.n_used + a.n_used;
    float* sum = y + r * a.n_used * n_embd;
    k_.scale(sum, weights[0], n_embd, sum);
    for (int64_t j = 1; j < a.n_used; ++j) {
      float* part = sum + j * n_embd;
      k_.scale(part, weights[j], n_embd, part);
      k_.add(sum, part, n_embd, sum);
    }
    k_.add(value(op.in[2]) + r * n_embd, sum, n_embd, value(op.out[0]) + r * n_embd);
  });
}

void CpuExecutable::gate_add(const graph::Op& op, Team& team) {
  const int64_t n = n_cols(op.out[0]);
  for_rows(team, n_tok_, n, [&](int64_t r) {
    float* y = value(op.in[0]) + r * n;
    const float gate = 1.0f / (1.0f + std::exp(-value(op.in[1])[r]));
    k_.scale(y, gate, n, y);
    k_.add(value(op.in[2]) + r * n, y, n, value(op.out[0]) + r * n);
  });
}

}  // namespace infer::cpu
