#include "tests/support/engine_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/text/sampler.h"

namespace infer::test {
namespace {

std::vector<float> logits_after(const FakeModelOptions& model, std::span<const TokenId> tokens) {
  uint64_t prefix = 0;
  for (size_t i = 0; i < tokens.size(); ++i)
    prefix = extend_prefix(prefix, tokens[i], static_cast<int64_t>(i));
  std::vector<float> logits(static_cast<size_t>(model.n_vocab));
  fake_logits(prefix, model.eog, logits);
  return logits;
}

/// The likeliest token, or the sampler's.
TokenId draw(const FakeModelOptions& model, const Request& r, text::Sampler* sampler,
             std::span<const TokenId> tokens) {
  std::vector<float> logits = logits_after(model, tokens);
  if (r.ignore_eos) {
    for (TokenId id : model.eog) logits[static_cast<size_t>(id)] = -INFINITY;
  }
  const auto best = std::max_element(logits.begin(), logits.end());
  const auto argmax = static_cast<TokenId>(best - logits.begin());
  return sampler != nullptr ? sampler->sample(logits, *best, argmax, tokens.size()) : argmax;
}

/// Where the stop string that is complete first begins.
size_t find_stop(const std::string& text, const std::vector<std::string>& stops) {
  size_t begin = std::string::npos, end = std::string::npos;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at == std::string::npos) continue;
    if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
      begin = at;
      end = at + stop.size();
    }
  }
  return begin;
}

}  // namespace

std::string fake_text(const FakeModelOptions& model, std::span<const TokenId> ids) {
  const FakeVocabulary vocabulary(model.n_vocab, model.eog);
  const auto decoder = vocabulary.make_decoder();
  std::string text;
  for (TokenId id : ids) text += decoder->push(id);
  return text += decoder->finish();
}

std::vector<double> expected_logprobs(const FakeModelOptions& model,
                                      std::span<const TokenId> prompt, int64_t pos) {
  const std::vector<float> logits = logits_after(model, prompt.first(static_cast<size_t>(pos) + 1));
  double sum = 0.0;
  for (float x : logits) sum += std::exp(static_cast<double>(x));
  std::vector<double> out;
  for (float x : logits) out.push_back(static_cast<double>(x) - std::log(sum));
  return out;
}

TopLogprobs expected_top(const std::vector<double>& logprobs, int n) {
  std::vector<TokenId> order(logprobs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logprobs[static_cast<size_t>(a)] > logprobs[static_cast<size_t>(b)];
  });
  TopLogprobs top;
  for (TokenId id : order) {
    const double p = logprobs[static_cast<size_t>(id)];
    if (static_cast<int>(top.size()) == n || p == -INFINITY) break;
    top.push_back({id, static_cast<float>(p)});
  }
  return top;
}

ExpectedSample expected_sample(const FakeModelOptions& model, const Request& r, int sample,
                               int64_t n_ctx) {
  const FakeVocabulary vocabulary(model.n_vocab, model.eog);
  const auto decoder = vocabulary.make_decoder();
  const auto n_prompt = static_cast<int64_t>(r.prompt.size());
  const int64_t n_room = n_ctx - n_prompt;
  const int64_t n_new = r.max_tokens < 0 ? n_room : std::min(r.max_tokens, n_room);
  ExpectedSample out;
  Completion& c = out.completion;
  c.stop_reason = StopReason::kLength;
  std::vector<TokenId> tokens = r.prompt;
  std::vector<size_t> begins;
  text::SamplingParams params = r.sampling;
  params.seed += static_cast<uint64_t>(sample);
  const auto piece = [&](TokenId id) { return vocabulary.piece(id); };
  text::Sampler sampler(params, {model.n_vocab, n_ctx, piece});
  sampler.accept(tokens);
  while (static_cast<int64_t>(tokens.size()) < n_prompt + n_new) {
    const TokenId id = draw(model, r, text::is_argmax(params) ? nullptr : &sampler, tokens);
    const bool eog = std::ranges::find(model.eog, id) != model.eog.end();
    if (eog && !r.ignore_eos) {
      c.stop_reason = StopReason::kEos;
      break;
    }
    if (r.n_logprobs > 0)
      c.logprobs.push_back(
          expected_top(expected_logprobs(model, tokens, std::ssize(tokens) - 1), r.n_logprobs));
    tokens.push_back(id);
    sampler.accept(id);
    begins.push_back(c.text.size());
    c.text += decoder->push(id);
    if (find_stop(c.text, r.stop) != std::string::npos) {
      c.stop_reason = StopReason::kStop;
      break;
    }
  }
  out.drawn.assign(tokens.begin() + n_prompt, tokens.end());
  c.ids = out.drawn;
  c.text += decoder->finish();
  if (const size_t at = find_stop(c.text, r.stop); at != std::string::npos) {
    while (c.stop_reason == StopReason::kStop && !c.ids.empty() && begins[c.ids.size() - 1] >= at)
      c.ids.pop_back();
    c.text.resize(at);
  }
  if (r.n_logprobs > 0) c.logprobs.resize(c.ids.size());
  return out;
}

}  // namespace infer::test
