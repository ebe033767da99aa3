#include "core/text/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/check.h"
#include "core/text/samplers/mirostat.h"
#include "core/text/samplers/stage.h"

namespace infer::text {
namespace {

bool is_truncation(SamplerKind kind) {
  return kind != SamplerKind::kPenalties && kind != SamplerKind::kDry &&
         kind != SamplerKind::kTemperature;
}

/// Whether the stage, when it is the first that is no edit, makes a short list of the row.
bool starts_short(SamplerKind kind, const SamplingParams& p) {
  return kind == SamplerKind::kTopK || (kind == SamplerKind::kTemperature && p.temp <= 0.0f);
}

/// Whether the likeliest token that no bias forbids is always drawn.
bool is_best_of_rest(SamplingParams params) {
  params.logit_bias.clear();
  return is_argmax(params);
}

bool is_ban(const LogitBias& bias) { return bias.bias == -std::numeric_limits<float>::infinity(); }

}  // namespace

Sampler::Sampler(const SamplingParams& params, const SamplerContext& context)
    : params_(params), always_argmax_(is_argmax(params)) {
  if (always_argmax_) {
    n_top_ = 0;
    return;
  }
  const StageContext stage_context{
      .n_vocab = context.n_vocab,
      .max_tokens = context.max_tokens,
      .piece = context.piece ? &context.piece : nullptr,
  };
  const auto n_vocab = static_cast<size_t>(context.n_vocab);
  size_t n_edit = 0, n_list = n_vocab;
  bool is_row = true;  // nobody made a list so far
  // Tokens may only go: then the k best are among so many more of the row.
  bool only_bans = std::ranges::all_of(params.logit_bias, is_ban);
  const bool best_of_rest = only_bans && is_best_of_rest(params);
  const auto add = [&](std::unique_ptr<Stage> stage) {
    n_edit += stage->n_edit();
    stages_.push_back(std::move(stage));
  };
  if (auto bias = make_logit_bias(params)) add(std::move(bias));
  uint32_t stream = 1;
  for (SamplerKind kind : params.order) {
    if (params.mirostat == 2 && is_truncation(kind)) continue;
    auto stage = make_stage(kind, params, stage_context, stream++);
    if (stage == nullptr) continue;
    if (is_row && stage->n_edit() == 0) {
      is_row = false;
      const auto k = static_cast<size_t>(kind == SamplerKind::kTopK ? params.top_k : 1);
      if (starts_short(kind, params) && k + n_edit < n_list / 2) n_list = 2 * (k + n_edit);
      if (starts_short(kind, params) && only_bans) {
        n_top_ = static_cast<int32_t>(std::min(k + n_edit, n_vocab));
        top_by_id_ = k >= n_vocab;
      }
    }
    only_bans &= stage->n_edit() == 0;
    add(std::move(stage));
  }
  if (best_of_rest) n_top_ = static_cast<int32_t>(std::min(n_edit + 1, n_vocab));
  if (params.mirostat == 2)
    mirostat_ = std::make_unique<Mirostat>(params.mirostat_tau, params.mirostat_eta);
  candidates_.reserve(n_list, std::min(n_edit, n_vocab));
  weights_.reserve(n_list);
}

Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

int32_t Sampler::sample(std::span<const float> logits, float max_logit, int32_t argmax,
                        uint64_t position) {
  if (always_argmax_ || !std::isfinite(max_logit)) return argmax;
  candidates_.reset(logits, argmax);
  return pass_stages(argmax, position);
}

int32_t Sampler::sample_top(std::span<const Candidate> best, float max_logit, int32_t argmax,
                            uint64_t position) {
  INFER_CHECK(n_top_ >= 0, "these stages look at the whole row");
  if (always_argmax_ || !std::isfinite(max_logit)) return argmax;
  candidates_.reset_sorted(best.first(std::min(best.size(), static_cast<size_t>(n_top_))));
  if (top_by_id_) candidates_.sort_by_id();
  return pass_stages(argmax, position);
}

int32_t Sampler::pass_stages(int32_t argmax, uint64_t position) {
  const DrawKey key{.seed = params_.seed, .position = position};
  for (const std::unique_ptr<Stage>& stage : stages_) {
    if (candidates_.empty()) return argmax;
    stage->apply(candidates_, key);
  }
  if (candidates_.empty()) return argmax;
  if (mirostat_) mirostat_->truncate(candidates_);
  const Candidate drawn = draw(position);
  if (mirostat_) {
    drawn_ = drawn.id;
    surprise_ = mirostat_->surprise(drawn.logit);
  }
  return drawn.id;
}

/// In the order of the ids, so that the stages' order inside the list does not matter.
Candidate Sampler::draw(uint64_t position) {
  const double max_logit = candidates_.best()->logit;
  candidates_.sort_by_id();
  const std::span<const Candidate> list = candidates_.list();
  weights_.clear();
  double total = 0.0;
  for (const Candidate& c : list) {
    weights_.push_back(std::exp(c.logit - max_logit));
    total += weights_.back();
  }
  const double at = uniform_at(params_.seed, position) * total;
  double sum = 0.0;
  size_t last = 0;  // of those that can be drawn: rounding may lead past all
  for (size_t i = 0; i < list.size(); ++i) {
    if (!(weights_[i] > 0.0)) continue;
    last = i;
    sum += weights_[i];
    if (at < sum) break;
  }
  return list[last];
}

void Sampler::accept(int32_t token) {
  for (const std::unique_ptr<Stage>& stage : stages_) stage->accept(token);
  if (mirostat_ && token == drawn_) mirostat_->observe(surprise_);
  drawn_ = -1;
}

void Sampler::accept(std::span<const int32_t> tokens) {
  for (int32_t token : tokens) accept(token);
}

}  // namespace infer::text
