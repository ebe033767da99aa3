#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/op_profile.h"
#include "core/runtime/step.h"
#include "kernels/cpu/table.h"

/// What each op of a stage costs at least, from its shapes, and how long it took.
namespace infer::cpu {

struct LinearPlan;

/// What a call moves and computes. Sums of several are sums of their parts.
struct OpCost {
  double bytes = 0.0, f32_ops = 0.0, int8_ops = 0.0, int4_ops = 0.0;
};

/// The parts of a step that costs depend on.
struct StepShape {
  int64_t n_tok = 0;
  int64_t n_logit = 0;          ///< rows of the tail's current turn
  int64_t n_expert_in_use = 0;  ///< of the experts op that ran last
  /// Of one cache layer: slots that some row of their sequence sees, and pairs of a row and a slot
  /// that it sees.
  struct Seen {
    int64_t window = 0;  ///< 0: all slots up to the row's own
    int64_t n_slot = 0, n_pair = 0;
  };
  std::vector<Seen> seen;  ///< one for each window of the stage
};

/// An op's cost as a sum of terms, each so much for one of what the step has.
struct CostModel {
  OpCost call;    ///< whatever the step
  OpCost row;     ///< a row
  OpCost expert;  ///< an expert in use
  OpCost slot;    ///< a slot that is seen
  OpCost pair;    ///< a row that sees a slot
  graph::Rows rows = graph::Rows::kTok;
  size_t seen = 0;  ///< index into StepShape::seen

  OpCost of(const StepShape& step) const;
};

/// What an op is called, the same in all layers: "linear attn_q/k/v q4_0", "attention f16", "norm".
std::string profile_name(const graph::Graph& graph, const graph::Op& op,
                         const kern::KvPoolView* pool);

/// Times the ops of one stage. Nothing is allocated after the first step.
class StageProfile {
 public:
  /// `linears` and `pools` as in CpuExecutable; experts in use are counted in `expert_begin`.
  /// All of them outlive this.
  StageProfile(const graph::Graph& graph, const graph::StagePlan& plan,
               std::span<const LinearPlan> linears, std::span<const kern::KvPoolView> pools,
               const std::vector<int32_t>& expert_begin, runtime::OpProfile& profile);

  void begin_step(const runtime::Step& step);
  void end_step();
  void begin_op() {
    if (on_) op_begin_ = Clock::now();
  }
  /// `index`: of the op in the graph.
  void end_op(int index, int64_t n_logit_row) {
    if (on_) add(index, n_logit_row, Clock::now());
  }

 private:
  using Clock = std::chrono::steady_clock;
  void add(int index, int64_t n_logit_row, Clock::time_point end);
  size_t seen_of(int64_t window);

  const int first_op_;
  const std::vector<int32_t>& expert_begin_;
  runtime::OpProfile& profile_;
  std::vector<CostModel> costs_;
  std::vector<runtime::OpSums*> sums_;  ///< nullptr: a norm that the op behind it does
  StepShape shape_;
  bool on_ = false;
  Clock::time_point step_begin_, op_begin_;
};

/// Times a step, or one op of it, from here to the end of the block. `profile` may be nullptr.
class TimedStep {
 public:
  TimedStep(StageProfile* profile, const runtime::Step& step) : profile_(profile) {
    if (profile_ != nullptr) profile_->begin_step(step);
  }
  ~TimedStep() {
    if (profile_ != nullptr) profile_->end_step();
  }
  TimedStep(const TimedStep&) = delete;
  TimedStep& operator=(const TimedStep&) = delete;

 private:
  StageProfile* profile_;
};
class TimedOp {
 public:
  TimedOp(StageProfile* profile, int index, size_t n_logit_row)
      : profile_(profile), index_(index), n_logit_row_(static_cast<int64_t>(n_logit_row)) {
    if (profile_ != nullptr) profile_->begin_op();
  }
  ~TimedOp() {
    if (profile_ != nullptr) profile_->end_op(index_, n_logit_row_);
  }
  TimedOp(const TimedOp&) = delete;
  TimedOp& operator=(const TimedOp&) = delete;

 private:
  StageProfile* profile_;
  int index_;
  int64_t n_logit_row_;
};

}  // namespace infer::cpu
