#include "core/engine_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/error.h"

namespace infer::internal {
namespace {

constexpr int kMaxSamples = 1024;
constexpr int64_t kTextBytesPerToken = 8;  ///< room kept for the text, a bit more than tokens take
constexpr int64_t kMaxLogprobsKept =
    1 << 18;  ///< room kept for log-probabilities; beyond that they may allocate

template <class... Args>
Error invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

Result<void> validate_prompt(const Request& r, const RequestLimits& limits) {
  if (r.prompt.empty()) return invalid("prompt is empty");
  for (size_t i = 0; i < r.prompt.size(); ++i) {
    if (r.prompt[i] < 0 || r.prompt[i] >= limits.n_vocab)
      return invalid("prompt[{}] = {} is not in a vocabulary of {} tokens", i, r.prompt[i],
                     limits.n_vocab);
  }
  if (r.max_tokens < -1) return invalid("max_tokens = {} is below -1", r.max_tokens);
  const int64_t need = static_cast<int64_t>(r.prompt.size()) + (r.max_tokens == 0 ? 0 : 1);
  if (need > limits.n_ctx)
    return invalid("prompt of {} tokens needs a context of {}, but a sequence can have {}",
                   r.prompt.size(), need, limits.n_ctx);
  return {};
}

Result<void> validate_outputs(const Request& r, const RequestLimits& limits) {
  const auto n_prompt = static_cast<int64_t>(r.prompt.size());
  for (const auto& [name, n] : {std::pair{"n_logprobs", r.n_logprobs},
                                std::pair{"n_prompt_logprobs", r.n_prompt_logprobs}}) {
    if (n < 0 || n > limits.n_vocab)
      return invalid("{} = {} is not in 0..{}", name, n, limits.n_vocab);
  }
  for (size_t i = 0; i < r.targets.size(); ++i) {
    const LogprobTarget& t = r.targets[i];
    if (t.pos < 0 || t.pos >= n_prompt)
      return invalid("targets[{}].pos = {} is not in a prompt of {} tokens", i, t.pos, n_prompt);
    if (t.token < 0 || t.token >= limits.n_vocab)
      return invalid("targets[{}].token = {} is not in a vocabulary of {} tokens", i, t.token,
                     limits.n_vocab);
    if (i > 0 && t.pos < r.targets[i - 1].pos)
      return invalid("targets[{}].pos = {} comes after pos {}", i, t.pos, r.targets[i - 1].pos);
  }
  if (r.logits_from < 0 || r.logits_from > n_prompt)
    return invalid("logits_from = {} is not in 0..{}", r.logits_from, n_prompt);
  return {};
}

Result<void> validate_branches(const Request& r, const RequestLimits& limits) {
  if (r.branches.empty()) return {};
  if (r.max_tokens != 0 || r.n_samples != 1)
    return invalid("branches need max_tokens = 0 and n_samples = 1, not {} and {}", r.max_tokens,
                   r.n_samples);
  if (r.branches.size() > static_cast<size_t>(kMaxSamples))
    return invalid("{} branches, at most {}", r.branches.size(), kMaxSamples);
  for (size_t b = 0; b < r.branches.size(); ++b) {
    const std::vector<TokenId>& branch = r.branches[b];
    if (branch.empty()) return invalid("branches[{}] is empty", b);
    for (const TokenId id : branch) {
      if (id < 0 || id >= limits.n_vocab)
        return invalid("branches[{}] has {}, which is not in a vocabulary of {} tokens", b, id,
                       limits.n_vocab);
    }
    // The last token is only predicted.
    const int64_t need = static_cast<int64_t>(r.prompt.size() + branch.size()) - 1;
    if (need > limits.n_ctx)
      return invalid("prompt and branches[{}] need a context of {}, but a sequence can have {}", b,
                     need, limits.n_ctx);
  }
  return {};
}

void set_wanted_rows(Sample& leader, const Request& r) {
  if (!r.branches.empty()) leader.want_from = leader.n_prompt - 1;
  if (r.on_logits) leader.want_from = std::min<int64_t>(leader.want_from, r.logits_from);
  if (r.n_prompt_logprobs > 0) leader.want_from = 0;
  for (const LogprobTarget& t : r.targets) {
    if (t.pos < leader.want_from && (leader.want_rows.empty() || leader.want_rows.back() != t.pos))
      leader.want_rows.push_back(t.pos);
  }
}

void add_sampler(Sample& sample, const Request& r, const RequestLimits& limits,
                 const Vocabulary& vocabulary) {
  text::SamplingParams params = r.sampling;
  params.seed += static_cast<uint64_t>(sample.sample);
  if (r.ignore_eos) {
    for (TokenId id : vocabulary.eog_ids()) params.logit_bias.push_back({id, -INFINITY});
  }
  if (text::is_argmax(params)) return;
  const auto piece = [&vocabulary](TokenId id) { return vocabulary.piece(id); };
  const int64_t max_tokens = sample.n_prompt + sample.state->n_new;
  sample.sampler.emplace(params, text::SamplerContext{limits.n_vocab, max_tokens, piece});
  sample.sampler->accept(r.prompt);
}

/// How much of a row is needed to draw the next token and to say how likely the best ones were.
int32_t top_needed(const Sample& sample, const Request& r, const RequestLimits& limits) {
  const int32_t n_draw = sample.sampler ? sample.sampler->n_top() : 0;
  const int32_t n = std::min(std::max(n_draw, r.n_logprobs), limits.n_vocab);
  return n_draw < 0 || n > runtime::kMaxTop ? -1 : n;
}

std::unique_ptr<Sample> make_sample(RequestState& state, int index, const RequestLimits& limits,
                                    const Vocabulary& vocabulary) {
  const Request& r = state.request;
  auto s = std::make_unique<Sample>(r.stop);
  s->request = state.id;
  s->sample = index;
  s->state = &state;
  s->tokens.reserve(r.prompt.size() + static_cast<size_t>(state.n_new));
  s->tokens.assign(r.prompt.begin(), r.prompt.end());
  s->n_prompt = static_cast<int64_t>(r.prompt.size());
  s->want_last = state.n_new > 0;
  add_sampler(*s, r, limits, vocabulary);
  s->n_top = top_needed(*s, r, limits);
  if (r.adapters) s->adapters = *r.adapters;
  s->decoder = vocabulary.make_decoder();
  const auto n = static_cast<size_t>(state.n_new);
  s->out.ids.reserve(n);
  s->out.text.reserve(static_cast<size_t>(state.n_new * kTextBytesPerToken));
  if (!r.stop.empty()) s->text_begin.reserve(n);
  if (r.n_logprobs > 0) {
    s->logprobs_end.reserve(n);
    s->logprobs.reserve(
        static_cast<size_t>(std::min(state.n_new * r.n_logprobs, kMaxLogprobsKept)));
  }
  return s;
}

/// The rows that predict the second and later tokens of a branch; the prompt's last row predicts
/// the first. A branch of one token needs none.
void add_branches(RequestState& state, const RequestLimits& limits, const Vocabulary& vocabulary) {
  const Request& r = state.request;
  for (size_t b = 0; b < r.branches.size(); ++b) {
    const std::vector<TokenId>& branch = r.branches[b];
    state.response.branch_logprobs.emplace_back(branch.size());
    state.response.timings.prompt_tok += static_cast<int64_t>(branch.size()) - 1;
    if (branch.size() < 2) continue;
    auto s = make_sample(state, static_cast<int>(b) + 1, limits, vocabulary);
    s->branch = static_cast<int>(b);
    s->want_from = s->n_prompt;
    s->tokens.insert(s->tokens.end(), branch.begin(), branch.end() - 1);
    s->n_prompt = static_cast<int64_t>(s->tokens.size());
    state.samples.push_back(std::move(s));
  }
}

}  // namespace

Result<std::vector<AdapterUse>> canonical_mix(std::vector<AdapterUse> mix, int n_adapter) {
  for (const AdapterUse& use : mix) {
    if (use.adapter < 0 || use.adapter >= n_adapter)
      return invalid("adapter {} of {}", use.adapter, n_adapter);
    if (!std::isfinite(use.scale)) return invalid("adapter {}: scale = {}", use.adapter, use.scale);
  }
  std::erase_if(mix, [](const AdapterUse& use) { return use.scale == 0.0f; });
  std::ranges::sort(mix, {}, &AdapterUse::adapter);
  const auto twice = std::ranges::adjacent_find(mix, {}, &AdapterUse::adapter);
  if (twice != mix.end()) return invalid("adapter {} is given twice", twice->adapter);
  return mix;
}

int32_t MixTable::number_of(const std::vector<AdapterUse>& mix) {
  if (mix.empty()) return -1;
  const auto it = std::ranges::find(known_, mix, &Known::mix);
  if (it != known_.end()) {
    std::rotate(it, it + 1, known_.end());
    return known_.back().number;
  }
  // After 2^31 mixes the cache has nothing of the first ones left.
  if (next_ == std::numeric_limits<int32_t>::max()) next_ = 0;
  if (known_.size() == kMaxKnown) known_.erase(known_.begin());
  known_.push_back({mix, next_++});
  return known_.back().number;
}

Result<void> validate(const Request& r, const RequestLimits& limits) {
  INFER_TRY(validate_prompt(r, limits));
  INFER_TRY(text::validate(r.sampling, limits.n_vocab));
  INFER_TRY(validate_outputs(r, limits));
  INFER_TRY(validate_branches(r, limits));
  if (r.n_samples < 1 || r.n_samples > kMaxSamples)
    return invalid("n_samples = {} is not in 1..{}", r.n_samples, kMaxSamples);
  for (size_t i = 0; i < r.stop.size(); ++i) {
    if (r.stop[i].empty()) return invalid("stop[{}] is empty", i);
  }
  return {};
}

std::unique_ptr<RequestState> make_state(RequestId id, Request request, const RequestLimits& limits,
                                         const Vocabulary& vocabulary) {
  auto state = std::make_unique<RequestState>();
  state->id = id;
  state->request = std::move(request);
  state->submitted = Clock::now();
  const Request& r = state->request;
  const int64_t n_room = limits.n_ctx - static_cast<int64_t>(r.prompt.size());
  state->n_new = r.max_tokens < 0 ? n_room : std::min(r.max_tokens, n_room);
  for (int i = 0; i < r.n_samples; ++i)
    state->samples.push_back(make_sample(*state, i, limits, vocabulary));
  set_wanted_rows(state->leader(), r);
  if (r.n_prompt_logprobs > 0) state->response.prompt_logprobs.reserve(r.prompt.size());
  state->response.target_logprobs.reserve(r.targets.size());
  state->response.timings.prompt_tok = static_cast<int64_t>(r.prompt.size());
  add_branches(*state, limits, vocabulary);
  state->n_open = state->samples.size();
  return state;
}

void complete(RequestState& state) {
  const auto us = [](Clock::duration d) {
    return std::chrono::duration<double, std::micro>(d).count();
  };
  const Clock::time_point now = Clock::now();
  Timings& t = state.response.timings;
  const Clock::time_point started = state.is_started ? state.started : now;
  const Clock::time_point prompt_done = state.forked ? state.prompt_done : now;
  t.queue_us = us(started - state.submitted);
  t.prompt_us = us(prompt_done - started);
  t.predicted_us = us(now - prompt_done);
  for (const std::unique_ptr<Sample>& s : state.samples) {
    if (s->branch >= 0) continue;
    t.predicted_tok += static_cast<int64_t>(s->tokens.size()) - s->n_prompt;
    size_t begin = 0;
    for (size_t i = 0; i < s->out.ids.size() && i < s->logprobs_end.size(); ++i) {
      const TokenLogprob* all = s->logprobs.data();
      s->out.logprobs.emplace_back(all + begin, all + s->logprobs_end[i]);
      begin = s->logprobs_end[i];
    }
    state.response.samples.push_back(std::move(s->out));
  }
}

}  // namespace infer::internal
