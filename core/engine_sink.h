#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/engine_request.h"
#include "core/runtime/backend.h"
#include "core/runtime/scheduler.h"
#include "core/text/top_select.h"

namespace infer::internal {

/// Takes from the logits of a step, while they last, all that somebody asked for: the next token of
/// each sequence, log-probabilities, callbacks. Results lie in the samples and in the request's
/// response.
class StepSink : public runtime::LogitSink {
 public:
  /// The parts of the step whose logits come next; they stay until the step is done.
  void begin(std::span<const runtime::ScheduledRows> parts);
  /// Room for n best candidates.
  void reserve(size_t n) { best_.reserve(std::max(2 * n, size_t{runtime::kMaxTop})); }
  void on_logits(const runtime::LogitTile& tile) override;

 private:
  using Row = std::span<const float>;
  const runtime::ScheduledRows& part_of(int32_t row);
  void on_row(int32_t row, Row logits, const runtime::LogitStats& stats);
  void on_top(const runtime::LogitTile& tile, size_t i);
  void deliver_prompt_row(RequestState& state, int64_t pos, Row logits,
                          const runtime::LogitStats& stats);
  void deliver_branch_row(Sample& sample, int64_t pos, Row logits,
                          const runtime::LogitStats& stats);
  void draw(Sample& sample, Row logits, const runtime::LogitStats& stats);
  void draw_top(Sample& sample, const runtime::LogitStats& stats);
  void add_logprobs(Sample& sample, const runtime::LogitStats& stats);

  std::span<const runtime::ScheduledRows> parts_;
  size_t at_ = 0;                      ///< part of the row that comes next
  std::vector<text::Candidate> best_;  ///< of the row at hand
};

}  // namespace infer::internal
