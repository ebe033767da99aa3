#include "backends/cpu/bench/profile_report.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace infer::cpu::bench {
namespace {

ProfileRow::Group group_of(graph::OpKind op) {
  switch (op) {
    case graph::OpKind::kLinearGroup:
    case graph::OpKind::kMoeGlu:
    case graph::OpKind::kMoeDown:
      return ProfileRow::Group::kWeights;
    case graph::OpKind::kAttention:
      return ProfileRow::Group::kAttention;
    default:
      return ProfileRow::Group::kOther;
  }
}

double time_at(double amount, double per_s) { return per_s > 0.0 ? amount / per_s : 0.0; }

}  // namespace

ProfileReport profile_report(ProfiledTest test, const runtime::OpProfile& profile) {
  ProfileReport report;
  report.test = std::move(test);
  report.n_step = profile.n_step();
  const double a_step = 1.0 / static_cast<double>(std::max<int64_t>(1, profile.n_step()));
  const Limits& limits = report.test.limits;
  double ops_s = 0.0;
  for (const auto& [name, sums] : profile.ops()) {
    if (sums.n_call == 0) continue;
    ProfileRow row{name, group_of(sums.op)};
    row.n_call = static_cast<double>(sums.n_call) * a_step;
    row.seconds = sums.seconds * a_step;
    row.bytes = sums.bytes * a_step;
    row.f32_ops = sums.f32_ops * a_step;
    row.int8_ops = sums.int8_ops * a_step;
    row.int4_ops = sums.int4_ops * a_step;
    row.read_s = time_at(row.bytes, limits.read_per_s);
    row.ops_s = time_at(row.f32_ops, limits.f32.per_s) + time_at(row.int8_ops, limits.int8.per_s) +
                time_at(row.int4_ops, limits.int4.per_s);
    ops_s += row.seconds;
    report.rows.push_back(std::move(row));
  }
  std::ranges::stable_sort(report.rows, std::greater(), &ProfileRow::seconds);
  report.step_s = report.test.wall_s * a_step;
  report.between_ops_s = std::max(0.0, profile.step_s() * a_step - ops_s);
  report.between_steps_s = std::max(0.0, report.step_s - ops_s - report.between_ops_s);
  report.advice = advice_for(report);
  return report;
}

}  // namespace infer::cpu::bench
