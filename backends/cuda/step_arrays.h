#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"
#include "core/runtime/step.h"
#include "kernels/cuda/attention.h"

namespace infer::cuda {

/// Everything that varies from step to step, as one block of bytes that is copied to the device
/// before the step's kernels: places do not depend on the step, so captured kernels find theirs.
/// Tables are last, so that only what a step uses is copied.
struct StepLayout {
  int64_t n_tok = 0;         ///< rows a step may have
  int64_t n_logit_rows = 0;  ///< wanted rows of a turn
  int64_t live_at = 0;       ///< [1] rows of the step
  int64_t single_at = 0;     ///< [1] of these, the leading ones that are alone in their sequence
  int64_t turn_live_at = 0;  ///< [turns] wanted rows of each turn
  int64_t token_at = 0, pos_at = 0, slot_at = 0, seq_at = 0, want_at = 0;  ///< [n_tok] each
  std::vector<int> tile_rows;     ///< sizes of query tiles that attention asks for
  std::vector<int64_t> tiles_at;  ///< [tile_rows] QueryTile [n_tok]
  int64_t copies_at = 0;          ///< int2 [max_copies], group by group
  int64_t max_copies = 0;
  int64_t tables_at = 0;     ///< [sequences][groups][group_stride] physical blocks
  int64_t group_stride = 0;  ///< blocks of n_ctx tokens
  int64_t n_group = 0;
  int64_t n_bytes = 0;

  /// Errors: kOutOfMemory for sizes that overflow.
  static Result<StepLayout> plan(const graph::Graph& graph, const graph::Capacity& capacity,
                                 int64_t n_ctx, std::vector<int> tile_rows);

  template <class T>
  static T* at(std::byte* base, int64_t offset) {
    return reinterpret_cast<T*>(base + offset);
  }
  /// The rows of a launch for m of them, in the device's copy.
  Rows rows(std::byte* base, int m) const;
  /// The leading rows that are alone in their sequence.
  Rows single_rows(std::byte* base, int m) const;
  BlockTable table(std::byte* base, int group) const;
};

/// What the host has to know of a step that was filled in.
struct StepFacts {
  int n_row = 0;
  int n_single = 0;  ///< leading rows that are alone in their sequence
  bool is_decode() const { return n_single == n_row; }
  std::vector<int32_t> want;       ///< wanted rows, ascending
  std::vector<int> n_tile;         ///< [tile_rows], of the rows after the single ones
  std::vector<int> copies_before;  ///< [groups + 1] copies of the groups before
  int64_t n_bytes = 0;             ///< to be copied

  void reserve(const StepLayout& layout);
};

/// Writes a step's arrays to `host`.
void fill_step(const StepLayout& layout, const runtime::Step& step, std::byte* host,
               StepFacts* facts);

}  // namespace infer::cuda
