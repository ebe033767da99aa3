#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "backends/cpu/bench/profile_report.h"

/// What takes the most time decides: weights, attention, the small ops, or what is outside of ops.
/// Whether the machine or the kernel bounds that is a matter of how much of the nearer limit was
/// reached: a kernel also unpacks, scales and adds up, so that kNear of a limit leaves it little to
/// gain. Before all of that: threads that did not run cannot be judged.
namespace infer::cpu::bench {
namespace {

constexpr double kNear = 0.6;  // of a limit
constexpr double kRan = 0.75;  // of the threads' time; a waiting thread spins, so that less is
                               // the system's doing

using Group = ProfileRow::Group;

ProfileRow sum_of(const ProfileReport& r, Group group) {
  ProfileRow sum;
  for (const ProfileRow& row : r.rows) {
    if (row.group != group) continue;
    sum.seconds += row.seconds;
    sum.bytes += row.bytes;
    sum.f32_ops += row.f32_ops;
    sum.int8_ops += row.int8_ops;
    sum.int4_ops += row.int4_ops;
    sum.read_s += row.read_s;
    sum.ops_s += row.ops_s;
  }
  return sum;
}

/// The row of the group that is furthest behind its limit, in seconds.
const ProfileRow& most_lost(const ProfileReport& r, Group group) {
  const auto lost = [&](const ProfileRow& row) {
    return row.group == group ? row.seconds - row.limit_s() : -1.0;
  };
  return *std::ranges::max_element(r.rows, {}, lost);
}

std::string percent(double share) { return fmt::format("{:.0f} %", 100.0 * share); }

std::string phase(const ProfileReport& r) {
  return r.test.prompt ? "prompt processing" : "generation";
}

/// "71 % of the 57.0 GB/s that this machine reads"
std::string of_limit(const ProfileReport& r, const ProfileRow& sum) {
  if (sum.bound_by_read())
    return fmt::format("{} of the {:.1f} GB/s that this machine reads", percent(sum.roofline()),
                       r.test.limits.read_per_s * 1e-9);
  // Where there is more than one sort of them the largest part names the limit.
  const Limits& l = r.test.limits;
  const double most = std::max({sum.f32_ops, sum.int8_ops, sum.int4_ops});
  const Limits::Ops& ops = most == sum.f32_ops ? l.f32 : most == sum.int8_ops ? l.int8 : l.int4;
  return fmt::format("{} of the {:.0f} GOP/s that {} reaches ({})", percent(sum.roofline()),
                     ops.per_s * 1e-9, r.test.isa, ops.name);
}

std::string weights_advice(const ProfileReport& r, const ProfileRow& sum) {
  const std::string reached = of_limit(r, sum);
  const std::string time = percent(r.share(sum.seconds)) + " of the time";
  if (sum.roofline() < kNear)
    return fmt::format(
        "{} spends {} on weights at {}: the kernels bound it, not the machine; "
        "most is lost in {}",
        phase(r), time, reached, most_lost(r, Group::kWeights).name);
  if (sum.bound_by_read())
    return fmt::format(
        "{} is bound by reading weights ({}): {}; only smaller weights or more "
        "sequences a step make it faster",
        phase(r), time, reached);
  return fmt::format(
      "{} is bound by multiply-adds with weights ({}): {}; only more or wider cores "
      "make it faster",
      phase(r), time, reached);
}

std::string attention_advice(const ProfileReport& r, const ProfileRow& sum) {
  const std::string reached = of_limit(r, sum);
  const std::string time = percent(r.share(sum.seconds)) + " of the time";
  if (sum.roofline() < kNear)
    return fmt::format(
        "{} spends {} on attention at {}: the kernel bounds it, not the machine; a "
        "shorter context makes it faster",
        phase(r), time, reached);
  if (sum.bound_by_read())
    return fmt::format(
        "{} is bound by reading K and V ({}): {}; a smaller --cache-type-k and "
        "--cache-type-v or a shorter context makes it faster",
        phase(r), time, reached);
  return fmt::format(
      "{} is bound by attention's multiply-adds ({}): {}; only a shorter context or "
      "more cores make it faster",
      phase(r), time, reached);
}

/// "norm and add"
std::string largest_two(const ProfileReport& r, Group group) {
  std::string names;
  int n = 0;
  for (const ProfileRow& row : r.rows) {
    if (row.group != group || n == 2) continue;
    ++n;
    names += (names.empty() ? "" : " and ") + row.name;
  }
  return names;
}

}  // namespace

std::string advice_for(const ProfileReport& r) {
  const int n = r.test.n_threads;
  // Between steps one thread is enough; in them all of them work, or spin.
  const double busy_s = n * (r.step_s - r.between_steps_s) + r.between_steps_s;
  const double ran_s = r.test.cpu_s / static_cast<double>(std::max<int64_t>(1, r.n_step));
  if (n > 1 && ran_s < kRan * busy_s)
    return fmt::format(
        "the {} threads ran only {} of the time: other programs, a CPU quota or "
        "more threads than cores; measure again when they have the machine to themselves",
        n, percent(ran_s / busy_s));
  const ProfileRow weights = sum_of(r, Group::kWeights), attention = sum_of(r, Group::kAttention),
                   other = sum_of(r, Group::kOther);
  const double outside_s = r.between_ops_s + r.between_steps_s;
  const double most = std::max({weights.seconds, attention.seconds, other.seconds, outside_s});
  if (most == weights.seconds && !r.rows.empty()) return weights_advice(r, weights);
  if (most == attention.seconds && !r.rows.empty()) return attention_advice(r, attention);
  if (most == other.seconds && !r.rows.empty())
    return fmt::format(
        "{} spends {} of the time on ops too small to share out ({}), in which "
        "threads wait for each other: fewer threads or more sequences a step "
        "lose less",
        phase(r), percent(r.share(other.seconds)), largest_two(r, Group::kOther));
  return fmt::format(
      "{} spends {} of the time outside of ops ({}): more sequences a step share "
      "that, more threads do not help",
      phase(r), percent(r.share(outside_s)),
      r.between_steps_s >= r.between_ops_s ? "scheduler, sampler, hand-over"
                                           : "statistics and hand-over of logits");
}

}  // namespace infer::cpu::bench
