#include "core/engine_sink.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace infer::internal {
namespace {

float logprob(float logit, const runtime::LogitStats& stats) {
  return static_cast<float>(static_cast<double>(logit) - stats.max - std::log(stats.sum_exp));
}

}  // namespace

void StepSink::begin(std::span<const runtime::ScheduledRows> parts) {
  parts_ = parts;
  at_ = 0;
}

void StepSink::on_logits(const runtime::LogitTile& tile) {
  for (size_t i = 0; i < tile.rows.size(); ++i) {
    if (tile.has_rows()) {
      on_row(tile.rows[i], tile.logits.row(static_cast<int64_t>(i)), tile.stats[i]);
    } else {
      on_top(tile, i);
    }
  }
}

/// Needs: rows in order.
const runtime::ScheduledRows& StepSink::part_of(int32_t row) {
  while (at_ < parts_.size() && row >= parts_[at_].row + parts_[at_].n_row) ++at_;
  INFER_CHECK(at_ < parts_.size() && row >= parts_[at_].row,
              "logits of row {} are not of this step", row);
  return parts_[at_];
}

void StepSink::on_row(int32_t row, Row logits, const runtime::LogitStats& stats) {
  const runtime::ScheduledRows& part = part_of(row);
  auto& sample = static_cast<Sample&>(*part.sequence);
  RequestState& state = *sample.state;
  const int64_t pos = part.begin + (row - part.row);
  if (sample.wants_prompt_row(pos)) {
    if (sample.branch >= 0) return deliver_branch_row(sample, pos, logits, stats);
    deliver_prompt_row(state, pos, logits, stats);
  }
  if (!sample.want_last || pos + 1 != static_cast<int64_t>(sample.tokens.size())) return;
  if (state.forked) return draw(sample, logits, stats);
  for (const std::unique_ptr<Sample>& each : state.samples) draw(*each, logits, stats);
}

/// Nobody wants more of the row than what the next token is drawn from.
void StepSink::on_top(const runtime::LogitTile& tile, size_t i) {
  const int32_t row = tile.rows[i];
  const runtime::ScheduledRows& part = part_of(row);
  auto& sample = static_cast<Sample&>(*part.sequence);
  const int64_t n = tile.top_logits.n_cols;
  const int64_t pos = part.begin + (row - part.row);
  INFER_CHECK(sample.n_top >= 0 && n >= sample.n_top && n <= runtime::kMaxTop &&
                  !sample.wants_prompt_row(pos),
              "row {}: the best {} of its logits do not suffice", row, n);
  best_.clear();
  for (int64_t k = 0; k < n; ++k) {
    const auto r = static_cast<int64_t>(i);
    best_.push_back({.logit = tile.top_logits.ptr(r)[k], .id = tile.top_ids.ptr(r)[k]});
  }
  if (sample.state->forked) return draw_top(sample, tile.stats[i]);
  for (const std::unique_ptr<Sample>& each : sample.state->samples) draw_top(*each, tile.stats[i]);
}

void StepSink::deliver_prompt_row(RequestState& state, int64_t pos, Row logits,
                                  const runtime::LogitStats& stats) {
  const Request& r = state.request;
  if (r.n_prompt_logprobs > 0) {
    text::select_top(logits, static_cast<size_t>(r.n_prompt_logprobs), best_);
    TopLogprobs& top = state.response.prompt_logprobs.emplace_back();
    top.reserve(best_.size());
    for (const text::Candidate& c : best_) top.push_back({c.id, logprob(c.logit, stats)});
  }
  for (; state.next_target < r.targets.size() && r.targets[state.next_target].pos == pos;
       ++state.next_target) {
    const auto token = static_cast<size_t>(r.targets[state.next_target].token);
    state.response.target_logprobs.push_back(logprob(logits[token], stats));
  }
  if (pos + 1 == static_cast<int64_t>(r.prompt.size())) {
    for (size_t b = 0; b < r.branches.size(); ++b) {
      const auto token = static_cast<size_t>(r.branches[b].front());
      state.response.branch_logprobs[b].front() = logprob(logits[token], stats);
    }
  }
  if (r.on_logits && pos >= r.logits_from) {
    r.on_logits({.pos = static_cast<int32_t>(pos),
                 .logits = logits,
                 .argmax = stats.argmax,
                 .max = stats.max,
                 .sum_exp = stats.sum_exp});
  }
}

void StepSink::deliver_branch_row(Sample& sample, int64_t pos, Row logits,
                                  const runtime::LogitStats& stats) {
  const auto b = static_cast<size_t>(sample.branch);
  const Request& r = sample.state->request;
  const size_t next = static_cast<size_t>(pos) + 1 - r.prompt.size();
  const auto token = static_cast<size_t>(r.branches[b][next]);
  sample.state->response.branch_logprobs[b][next] = logprob(logits[token], stats);
}

void StepSink::draw(Sample& sample, Row logits, const runtime::LogitStats& stats) {
  const Request& r = sample.state->request;
  sample.drawn = stats.argmax;
  if (sample.sampler)
    sample.drawn =
        sample.sampler->sample(logits, stats.max, stats.argmax, /*position=*/sample.tokens.size());
  if (r.n_logprobs == 0) return;
  text::select_top(logits, static_cast<size_t>(r.n_logprobs), best_);
  add_logprobs(sample, stats);
}

/// From best_.
void StepSink::draw_top(Sample& sample, const runtime::LogitStats& stats) {
  sample.drawn = stats.argmax;
  if (sample.sampler)
    sample.drawn = sample.sampler->sample_top(best_, stats.max, stats.argmax,
                                              /*position=*/sample.tokens.size());
  if (sample.state->request.n_logprobs > 0) add_logprobs(sample, stats);
}

void StepSink::add_logprobs(Sample& sample, const runtime::LogitStats& stats) {
  const auto n = static_cast<size_t>(sample.state->request.n_logprobs);
  for (const text::Candidate& c : std::span(best_).first(std::min(n, best_.size()))) {
    if (c.logit == -INFINITY) break;
    sample.logprobs.push_back({c.id, logprob(c.logit, stats)});
  }
  sample.logprobs_end.push_back(sample.logprobs.size());
}

}  // namespace infer::internal
