#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/graph/op.h"

/// Where the time of steps goes, op by op: what `infer-bench run --profile` prints.
/// Not public; EngineOptions::profile hands one to the backends.
namespace infer::runtime {

/// Of all calls of one kind of op, in all layers. A multiply-add is two operations.
struct OpSums {
  graph::OpKind op = graph::OpKind::kAdd;
  int64_t n_call = 0;
  double seconds = 0.0;
  double bytes = 0.0;     ///< that a call cannot do without: weights once, inputs, outputs, K and V
  double f32_ops = 0.0;   ///< on f32 numbers
  double int8_ops = 0.0;  ///< on 8-bit numbers
  double int4_ops = 0.0;  ///< on 8-bit numbers of which one has at most 4 bits
};

/// Where backends add what their ops took.
/// Threads: a backend writes while a step runs; call the rest when none does. Must outlive the
/// engine.
class OpProfile {
 public:
  /// For backends, while they compile: where the calls of ops of this name ("linear attn_q/k/v
  /// q4_0") are added, good as long as the profile lives.
  OpSums* watch(std::string_view name, graph::OpKind op) {
    OpSums& sums = ops_[std::string(name)];
    sums.op = op;
    return &sums;
  }
  /// For backends, when a step is done that was recorded.
  void add_step(double seconds) {
    ++n_step_;
    step_s_ += seconds;
  }

  /// Steps that begin from now on are added, or are not.
  void record(bool on) { recording_ = on; }
  bool recording() const { return recording_; }
  void clear() {
    for (auto& [name, sums] : ops_) sums = {.op = sums.op};
    n_step_ = 0;
    step_s_ = 0.0;
  }

  /// By name.
  const std::map<std::string, OpSums>& ops() const { return ops_; }
  int64_t n_step() const { return n_step_; }
  double step_s() const {
    return step_s_;
  }  ///< of the steps on their devices, ops and what is
     ///< between them

 private:
  std::map<std::string, OpSums> ops_;
  int64_t n_step_ = 0;
  double step_s_ = 0.0;
  bool recording_ = false;
};

}  // namespace infer::runtime
