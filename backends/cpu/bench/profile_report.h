#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/cpu/bench/roofline.h"
#include "core/runtime/op_profile.h"

/// What a profile says: where the time of a test went, how near each op came to the machine's
/// limits, and what bounds the whole.
namespace infer::cpu::bench {

/// What was measured.
struct ProfiledTest {
  std::string name;                  ///< "pp512"
  bool prompt = false;               ///< prompt processing, not generation
  double wall_s = 0.0, cpu_s = 0.0;  ///< of what was recorded, from outside
  int n_threads = 1;
  std::string isa;
  Limits limits;  ///< of this level with so many threads
};

/// A kind of op, all values a step.
struct ProfileRow {
  std::string name;
  enum class Group : uint8_t { kWeights, kAttention, kOther } group = Group::kOther;
  double n_call = 0.0, seconds = 0.0, bytes = 0.0, f32_ops = 0.0, int8_ops = 0.0, int4_ops = 0.0;
  double read_s = 0.0, ops_s = 0.0;  ///< that it takes at the machine's limits

  double ops() const { return f32_ops + int8_ops + int4_ops; }
  bool bound_by_read() const { return read_s >= ops_s; }
  double limit_s() const { return bound_by_read() ? read_s : ops_s; }
  /// Share of the nearer limit that was reached; above 1 where data came out of a cache.
  double roofline() const { return seconds > 0.0 ? limit_s() / seconds : 0.0; }
};

struct ProfileReport {
  ProfiledTest test;
  int64_t n_step = 0;
  std::vector<ProfileRow> rows;  ///< most time first
  /// A step: wall time; in it, outside of ops; between it and the next one (scheduler, sampler,
  /// hand-over).
  double step_s = 0.0, between_ops_s = 0.0, between_steps_s = 0.0;
  std::string advice;

  double share(double seconds) const { return step_s > 0.0 ? seconds / step_s : 0.0; }
};

ProfileReport profile_report(ProfiledTest test, const runtime::OpProfile& profile);

/// One line: what takes the most time, and what would make it faster. profile_advice.cpp has the
/// rules.
std::string advice_for(const ProfileReport& report);

/// The reports as an SVG file's text, a roofline each: operations a byte against operations a
/// second, log-log, under the lines that `roofline` says no op can cross. Needs: at least one.
std::string roofline_chart(const std::string& title, const std::vector<ProfileReport>& reports,
                           const RooflineReport& roofline);

}  // namespace infer::cpu::bench
