#pragma once

#include <cstdint>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"

namespace infer::graph {

/// How many rows a plan's arena has room for. Live counts come with each step.
struct Capacity {
  int64_t n_tok = 0;
  int64_t n_logit_rows =
      0;  ///< rows of logits computed at once; more wanted rows are done in turns
};

/// A contiguous run of half-layers on one backend, with the arena laid out by liveness.
struct StagePlan {
  int half_begin = 0, half_end = 0;
  int op_begin = 0, op_end = 0;
  /// The first op whose rows are the wanted rows; ops [tail_begin, op_end) run once for each turn
  /// of n_logit_rows.
  int tail_begin = 0;
  Capacity capacity;
  std::vector<int64_t>
      offset_bytes;  ///< per value: place in the arena, -1 when the stage does not touch it
  int64_t arena_bytes = 0;
  ValueId in = kNoValue, out = kNoValue;

  bool first() const { return in == kNoValue; }
};

/// Offsets are multiples of this.
inline constexpr int64_t kArenaAlign = 64;

/// Errors: kOutOfMemory when the arena's size overflows.
Result<StagePlan> plan_stage(const Graph& graph, int half_begin, int half_end,
                             const Capacity& capacity);

}  // namespace infer::graph
