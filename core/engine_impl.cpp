#include "core/engine_impl.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "core/base/error.h"
#include "core/model/model.h"

namespace infer::internal {
namespace {

runtime::KvCacheOptions cache_options(const EngineParts& parts, const EngineOptions& options,
                                      const RequestLimits& limits) {
  return {.groups = parts.groups,
          .max_seqs = options.max_seqs,
          .n_ctx = limits.n_ctx,
          .prefix_cache = options.prefix_cache};
}

}  // namespace

EngineImpl::EngineImpl(EngineParts parts, const EngineOptions& options, const RequestLimits& limits)
    : options_(options),
      parts_(std::move(parts)),
      limits_(limits),
      cache_(cache_options(parts_, options_, limits_)),
      scheduler_(
          cache_,
          {.n_batch = options_.n_batch, .max_seqs = options_.max_seqs, .n_ctx = limits_.n_ctx}) {
  const auto n_group = static_cast<size_t>(cache_.n_group());
  live_stats_.blocks_total.resize(n_group);
  live_stats_.blocks_free.resize(n_group);
  for (size_t g = 0; g < n_group; ++g)
    live_stats_.blocks_total[g] = cache_.n_block(static_cast<int>(g));
  stats_ = live_stats_;
  publish_stats();
  if (!options_.manual) thread_ = std::thread([this] { loop(); });
}

EngineImpl::~EngineImpl() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
  take_incoming();
  for (const std::unique_ptr<RequestState>& state : active_)
    finish_all(*state, StopReason::kCancelled);
  hand_over_done();
}

Result<RequestId> EngineImpl::submit(Request request) try {
  INFER_TRY(validate(request, limits_));
  INFER_ASSIGN(request.adapters,
               canonical_mix(std::move(request.adapters).value_or(options_.default_adapters),
                             limits_.n_adapter));
  INFER_TRY(check_session(request));
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = next_id_++;
  }
  auto state = make_state(id, std::move(request), limits_, *parts_.vocabulary);
  {
    const std::lock_guard lock(mutex_);
    known_.insert(id);
    incoming_.push_back(std::move(state));
  }
  work_.notify_one();
  return id;
} catch (const std::exception& e) {
  return make_error(ErrorCode::kOutOfMemory, "request cannot be queued: {}", e.what());
}

void EngineImpl::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    if (!known_.contains(id) || responses_.contains(id)) return;
    cancels_.push_back(id);
  }
  work_.notify_one();
}

Result<Response> EngineImpl::wait(RequestId id) {
  const auto settled = [&] { return responses_.contains(id) || !known_.contains(id); };
  std::unique_lock lock(mutex_);
  while (options_.manual && !settled()) {
    lock.unlock();
    INFER_ASSIGN(const bool worked, run_step());
    lock.lock();
    INFER_CHECK(worked || settled(), "request {} is neither done nor computed", id);
  }
  done_.wait(lock, settled);
  const auto it = responses_.find(id);
  if (it == responses_.end())
    return make_error(ErrorCode::kNotFound, "no request {}, or its response was taken", id);
  Result<Response> response = std::move(it->second);
  responses_.erase(it);
  known_.erase(id);
  done_.notify_all();
  return response;
}

Result<bool> EngineImpl::run_step() {
  if (!options_.manual)
    return make_error(ErrorCode::kInvalidArgument,
                      "run_step() needs EngineOptions::manual, this engine has its own thread");
  const std::lock_guard lock(step_mutex_);
  return step();
}

const model::Model& EngineImpl::model() const {
  INFER_CHECK(parts_.model != nullptr, "this engine was made without a model");
  return *parts_.model;
}

const text::Tokenizer& EngineImpl::tokenizer() const { return model().tokenizer(); }

EngineStats EngineImpl::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineImpl::publish_stats() {
  live_stats_.n_preempted = scheduler_.n_preempted();
  for (size_t g = 0; g < live_stats_.blocks_free.size(); ++g)
    live_stats_.blocks_free[g] = cache_.n_free(static_cast<int>(g));
  const std::lock_guard lock(mutex_);
  stats_ = live_stats_;  // vectors of equal size: nothing is allocated
}

Error EngineImpl::in_file(Error error) const {
  if (parts_.model != nullptr) error.message = parts_.model->file().path() + ": " + error.message;
  return error;
}

void EngineImpl::loop() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] {
        return stop_ || !incoming_.empty() || !cancels_.empty() || !scheduler_.idle();
      });
      if (stop_) return;
    }
    step();
  }
}

/// Moves new requests to the scheduler and ends cancelled ones.
bool EngineImpl::take_incoming() {
  {
    const std::lock_guard lock(mutex_);
    arrived_.swap(incoming_);
    to_cancel_.swap(cancels_);
  }
  const bool any = !arrived_.empty() || !to_cancel_.empty();
  for (std::unique_ptr<RequestState>& state : arrived_) {
    const Request& r = state->request;
    sink_.reserve(static_cast<size_t>(std::max(r.n_logprobs, r.n_prompt_logprobs)));
    if (r.deadline) ++n_deadline_;
    const int32_t mix = mixes_.number_of(*r.adapters);
    for (const std::unique_ptr<Sample>& sample : state->samples) sample->adapter = mix;
    use_session(state->leader());
    scheduler_.add(state->leader());
    active_.push_back(std::move(state));
  }
  arrived_.clear();
  for (RequestId id : to_cancel_) {
    const auto it = std::ranges::find_if(active_, [&](const auto& s) { return s->id == id; });
    if (it != active_.end()) finish_all(**it, StopReason::kCancelled);
  }
  to_cancel_.clear();
  return any;
}

bool EngineImpl::end_late_requests() {
  if (n_deadline_ == 0) return false;
  bool any = false;
  const Clock::time_point now = Clock::now();
  for (const std::unique_ptr<RequestState>& state : active_) {
    if (state->done() || !state->request.deadline || now < *state->request.deadline) continue;
    finish_all(*state, StopReason::kDeadline);
    any = true;
  }
  return any;
}

/// One turn of the engine; false when there was nothing to do.
bool EngineImpl::step() {
  bool worked = take_incoming();
  worked |= end_late_requests();
  try {
    if (scheduler_.build(step_)) {
      worked = true;
      if (Result<void> done = compute(); done.ok()) {
        apply();
      } else {
        const Error error = in_file(std::move(done).error());
        for (const runtime::ScheduledRows& part : scheduler_.scheduled())
          fail(*static_cast<Sample&>(*part.sequence).state, error);
      }
    }
  } catch (const std::exception& e) {  // the edge of the library: no exception leaves it
    const Error error = make_error(ErrorCode::kOutOfMemory, "step failed: {}", e.what());
    for (const std::unique_ptr<RequestState>& state : active_) fail(*state, error);
  }
  publish_stats();
  hand_over_done();
  return worked;
}

Result<void> EngineImpl::compute() {
  const Clock::time_point now = Clock::now();
  for (const runtime::ScheduledRows& part : scheduler_.scheduled()) {
    RequestState& state = *static_cast<Sample&>(*part.sequence).state;
    if (state.is_started) continue;
    state.is_started = true;
    state.started = now;
    state.response.timings.cached_tok = part.sequence->n_matched;
  }
  for (const runtime::Sequence* sequence : scheduler_.restored())
    INFER_TRY(import_session(*sequence));
  sink_.begin(scheduler_.scheduled());
  return parts_.executor->run(step_, &sink_);
}

void EngineImpl::apply() {
  ++live_stats_.n_step;
  live_stats_.n_row += static_cast<int64_t>(step_.rows.size());
  scheduler_.commit();
  for (const runtime::ScheduledRows& part : scheduler_.scheduled()) {
    auto& sample = static_cast<Sample&>(*part.sequence);
    if (part.begin + part.n_row == static_cast<int64_t>(sample.tokens.size())) advance(sample);
  }
}

/// All tokens of the sample are computed.
void EngineImpl::advance(Sample& sample) {
  RequestState& state = *sample.state;
  if (sample.branch >= 0) return finish(sample, StopReason::kLength);
  if (state.request.keep == KeepSession::kPrompt && !state.forked) {
    keep_session(sample);
    if (state.error) return finish_all(state, StopReason::kError);
  }
  if (!state.request.branches.empty()) {
    state.forked = true;
    state.prompt_done = Clock::now();
    fork_samples(state);
    return finish(sample, StopReason::kLength);
  }
  if (!sample.want_last) return finish_all(state, StopReason::kLength);
  if (state.forked) return accept(sample);
  state.forked = true;
  state.prompt_done = Clock::now();
  fork_samples(state);
  for (const std::unique_ptr<Sample>& each : state.samples) accept(*each);
}

/// The prompt is computed, and every sample has its first token drawn or is a branch. They share
/// the prompt's blocks, or wait for a place.
void EngineImpl::fork_samples(RequestState& state) {
  for (size_t i = 1; i < state.samples.size(); ++i)
    scheduler_.fork(state.leader(), *state.samples[i]);
}

bool EngineImpl::is_eog(TokenId id) const {
  const std::span<const TokenId> eog = parts_.vocabulary->eog_ids();
  return std::find(eog.begin(), eog.end(), id) != eog.end();
}

/// Appends the token that the last step drew, and ends the sample where it has to end.
void EngineImpl::accept(Sample& sample) {
  const Request& r = sample.state->request;
  if (!r.ignore_eos && is_eog(sample.drawn)) return finish(sample, StopReason::kEos);
  append_token(sample, sample.drawn);
  if (sample.matcher.matched()) {
    // Tokens that begin at or behind the stop string are no part of the answer.
    const int64_t n_text = sample.matcher.n_out();
    while (!sample.text_begin.empty() && sample.text_begin.back() >= n_text) {
      sample.text_begin.pop_back();
      sample.out.ids.pop_back();
    }
    return finish(sample, StopReason::kStop);
  }
  const auto n_drawn = static_cast<int64_t>(sample.tokens.size()) - sample.n_prompt;
  if (n_drawn >= sample.state->n_new) finish(sample, StopReason::kLength);
}

void EngineImpl::append_token(Sample& sample, TokenId token) {
  const Request& r = sample.state->request;
  sample.tokens.push_back(token);
  if (sample.sampler) sample.sampler->accept(token);
  sample.out.ids.push_back(token);
  const std::string_view decoded = sample.decoder->push(token);
  if (!r.stop.empty()) sample.text_begin.push_back(sample.n_decoded_bytes);
  sample.n_decoded_bytes += static_cast<int64_t>(decoded.size());
  const std::string_view text = sample.matcher.push(decoded);
  sample.out.text.append(text);
  if (!r.on_event) return;
  std::span<const TokenLogprob> logprobs;
  if (const size_t n = sample.logprobs_end.size(); n > 0) {
    const size_t begin = n > 1 ? sample.logprobs_end[n - 2] : 0;
    logprobs = std::span(sample.logprobs).subspan(begin);
  }
  r.on_event({.request = sample.state->id,
              .sample = sample.sample,
              .kind = Event::Kind::kToken,
              .token = token,
              .text = text,
              .logprobs = logprobs});
}

void EngineImpl::finish(Sample& sample, StopReason reason) {
  RequestState& state = *sample.state;
  if (sample.done) return;
  sample.done = true;
  --state.n_open;
  if (state.request.keep == KeepSession::kAll && !state.error && sample.sample == 0)
    keep_session(sample);
  if (state.error) reason = StopReason::kError;
  scheduler_.finish(sample);
  const size_t n_text = sample.out.text.size();
  sample.out.text.append(sample.matcher.push(sample.decoder->finish()));
  sample.out.text.append(sample.matcher.finish());
  sample.out.stop_reason = reason;
  const Request& r = state.request;
  if (!r.on_event) return;
  r.on_event({.request = state.id,
              .sample = sample.sample,
              .kind = Event::Kind::kDone,
              .text = std::string_view(sample.out.text).substr(n_text),
              .logprobs = {},
              .stop_reason = reason,
              .error = state.error ? &*state.error : nullptr});
}

void EngineImpl::finish_all(RequestState& state, StopReason reason) {
  for (const std::unique_ptr<Sample>& sample : state.samples) finish(*sample, reason);
}

void EngineImpl::fail(RequestState& state, const Error& error) {
  if (state.done()) return;
  state.error = error;
  finish_all(state, StopReason::kError);
}

/// Gives the responses of finished requests to whoever waits for them.
void EngineImpl::hand_over_done() {
  const auto is_done = [](const auto& state) { return state->done(); };
  if (std::ranges::none_of(active_, is_done)) return;
  for (const std::unique_ptr<RequestState>& state : active_) {
    if (!state->done()) continue;
    complete(*state);
    if (state->request.deadline) --n_deadline_;
    const std::lock_guard lock(mutex_);
    if (state->error) {
      responses_.emplace(state->id, *std::move(state->error));
    } else {
      responses_.emplace(state->id, std::move(state->response));
    }
  }
  done_.notify_all();
  std::erase_if(active_, is_done);
}

Result<std::unique_ptr<Engine>> create_with(EngineParts parts, const EngineOptions& options) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  constexpr int64_t kMaxCtx = int64_t{1} << 24;
  EngineOptions o = options;
  if (o.n_ctx < 1 || o.n_ctx > kMaxCtx)
    return make_error(kCode, "n_ctx = {} is not in 1..{}", o.n_ctx, kMaxCtx);
  if (o.n_batch < 1 || o.n_batch > kMaxCtx)
    return make_error(kCode, "n_batch = {} is not in 1..{}", o.n_batch, kMaxCtx);
  if (o.max_seqs < 1) return make_error(kCode, "max_seqs = {} is below 1", o.max_seqs);
  o.max_seqs = static_cast<int>(std::min<int64_t>(o.max_seqs, o.n_batch));
  RequestLimits limits{.n_ctx = o.n_ctx,
                       .n_vocab = parts.vocabulary->n_vocab(),
                       .n_adapter = static_cast<int>(o.adapters.size())};
  INFER_TRY(canonical_mix(o.default_adapters, limits.n_adapter));
  for (const runtime::KvGroupConfig& g : parts.groups) {
    if (g.window == 0) limits.n_ctx = std::min(limits.n_ctx, g.n_block * runtime::kBlockTok);
  }
  for (const runtime::KvGroupConfig& g : parts.groups) {
    const int64_t need = runtime::blocks_needed(g.window, std::max<int64_t>(limits.n_ctx, 1));
    if (g.n_block < need)
      return make_error(ErrorCode::kOutOfMemory,
                        "cache group of window {} has {} blocks, one sequence needs {}", g.window,
                        g.n_block, need);
  }
  for (TokenId id : parts.vocabulary->eog_ids()) {
    if (id < 0 || id >= limits.n_vocab)
      return make_error(ErrorCode::kCorrupt, "end-of-generation id {} is not in {} logits", id,
                        limits.n_vocab);
  }
  try {
    return std::unique_ptr<Engine>(std::make_unique<EngineImpl>(std::move(parts), o, limits));
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kOutOfMemory, "engine for {} sequences of {} tokens: {}",
                      o.max_seqs, limits.n_ctx, e.what());
  }
}

}  // namespace infer::internal
