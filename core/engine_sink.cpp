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
  for (size_t i = 0; i < tile.rows.size(); ++i)
    on_row(tile.rows[i], tile.logits.row(static_cast<int64_t>(i)), tile.stats[i]);
}

void StepSink::on_row(int32_t row, Row logits, const runtime::LogitStats& stats) {
  while (at_ < parts_.size() && row >= parts_[at_].row + parts_[at_].n_row) ++at_;
  INFER_CHECK(at_ < parts_.size() && row >= parts_[at_].row,
              "logits of row {} are not of this step", row);
  const runtime::ScheduledRows& part = parts_[at_];
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
  for (const text::Candidate& c : best_) sample.logprobs.push_back({c.id, logprob(c.logit, stats)});
  sample.logprobs_end.push_back(sample.logprobs.size());
}

}  // namespace infer::internal
