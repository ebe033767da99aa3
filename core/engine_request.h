#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/engine.h"
#include "core/engine_internal.h"
#include "core/runtime/sequence.h"
#include "core/text/sampler.h"
#include "core/text/stop_matcher.h"

namespace infer::internal {

using Clock = std::chrono::steady_clock;
struct RequestState;

/// One continuation of a prompt: a sequence of the scheduler and what becomes of its tokens.
struct Sample : runtime::Sequence {
  explicit Sample(std::vector<std::string> stops) : matcher(std::move(stops)) {}

  RequestState* state = nullptr;
  int branch = -1;  ///< which of Request::branches this evaluates; -1: the prompt and what is drawn
  /// Absent when the likeliest token is always drawn. It has seen the tokens that the sequence has;
  /// preemption takes away what was computed from them, not the tokens.
  std::optional<text::Sampler> sampler;
  std::unique_ptr<TextDecoder> decoder;
  text::StopMatcher matcher;
  Completion out;                      ///< its logprobs are filled at the end
  std::vector<TokenLogprob> logprobs;  ///< of all drawn tokens, one after the other
  std::vector<size_t> logprobs_end;    ///< per drawn token
  std::vector<int64_t> text_begin;     ///< per id: bytes decoded before it; only with stop strings
  int64_t n_decoded_bytes = 0;
  TokenId drawn = -1;  ///< by the step that was just computed
  bool done = false;
};

/// A request on its way through the engine. Made by the submitting thread with room for everything
/// that decoding will append, then touched by the engine's thread only.
struct RequestState {
  RequestId id = 0;
  Request request;
  int64_t n_new = 0;  ///< tokens that may be drawn at most
  std::vector<std::unique_ptr<Sample>> samples;
  size_t n_open = 0;    ///< samples that are not done
  bool forked = false;  ///< the prompt is computed, all samples have their first token
  size_t next_target = 0;
  Response response;
  std::optional<Error> error;
  Clock::time_point submitted, started, prompt_done;
  bool is_started = false;

  Sample& leader() { return *samples.front(); }
  bool done() const { return n_open == 0; }
};

struct RequestLimits {
  int64_t n_ctx = 0;
  int32_t n_vocab = 0;
  int n_adapter = 0;
};

/// Numbers the mixes of adapters, so that the prefix cache can tell K and V of one mix from those
/// of another. Equal mixes get equal numbers while they are among the kMaxKnown used last; a number
/// is never given to another mix.
class MixTable {
 public:
  /// Needs: sorted by adapter. -1 for the empty mix.
  int32_t number_of(const std::vector<AdapterUse>& mix);

 private:
  static constexpr size_t kMaxKnown = 256;
  struct Known {
    std::vector<AdapterUse> mix;
    int32_t number = 0;
  };
  std::vector<Known> known_;  ///< used last comes last
  int32_t next_ = 0;
};

/// A mix as it is computed: sorted, without those of scale 0. Errors: kInvalidArgument for an
/// adapter that there is not or that comes twice, and a scale that is no number.
Result<std::vector<AdapterUse>> canonical_mix(std::vector<AdapterUse> mix, int n_adapter);

/// Errors: kInvalidArgument naming the field and the numbers.
Result<void> validate(const Request& request, const RequestLimits& limits);
/// Needs: a valid request.
std::unique_ptr<RequestState> make_state(RequestId id, Request request, const RequestLimits& limits,
                                         const Vocabulary& vocabulary);
/// Moves what the samples have into the response.
void complete(RequestState& state);

}  // namespace infer::internal
