#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cpu/bench/timing.h"
#include "core/base/result.h"

/// What this machine can reach at most, measured: the two lines of a roofline and the recipes that
/// make up the second.
namespace infer::cpu::bench {

struct RooflineOptions {
  std::vector<int> threads;  ///< thread counts; empty: 1 and as many as the backend would take
  std::string isa;           ///< one ISA level only; empty: all
  Timing timing;
  int n_array = 3;          ///< arrays read in turn
  int64_t array_bytes = 0;  ///< of one; 0: twice the L3 cache, at least 64 MiB
  bool pin = true;
};

struct RooflinePoint {
  enum class Kind : uint8_t { kRead, kF32, kInt8, kInt4 /* 8 bits times 4 */ };
  std::string isa, name, recipe;
  Kind kind = Kind::kRead;
  int n_threads = 1;
  std::vector<double>
      per_s;  ///< bytes or operations (a multiply-add is two) a second, one a sample
};

struct SkippedLevel {
  std::string isa, why;
};

struct RooflineReport {
  std::string cpu;
  int64_t array_bytes = 0;
  int n_array = 0;
  std::vector<RooflinePoint> points;
  std::vector<SkippedLevel> skipped;  ///< levels of this build that this CPU cannot run
};

/// Errors: kInvalidArgument for an unknown level or sizes out of range, kUnsupported for a level
/// asked for by name that the CPU lacks, kOutOfMemory.
Result<RooflineReport> measure_roofline(const RooflineOptions& options);

/// The best sample: disturbance by others only ever slows down.
double best_of(const std::vector<double>& per_s);

/// The best of one ISA level with one number of threads; 0 for what was not measured.
struct Limits {
  struct Ops {
    double per_s = 0.0;
    std::string name;  ///< of the loop that reached it
  };
  double read_per_s = 0.0;  ///< bytes
  Ops f32, int8;
  Ops int4;  ///< of 8-bit numbers of which one has 4 bits: what is good for 8 is good for these
};
Limits limits_of(const RooflineReport& report, std::string_view isa, int n_threads);

}  // namespace infer::cpu::bench
