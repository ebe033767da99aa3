#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/sampler_params.h"
#include "core/text/samplers/candidates.h"
#include "core/text/samplers/philox.h"

namespace infer::text {

class Mirostat;
class Stage;

/// What a sampler has to know of the model.
struct SamplerContext {
  int32_t n_vocab = 0;
  int64_t max_tokens = 0;  ///< most tokens that will be accepted; windows are no longer than that
  /// Text of a token, for DRY's breakers; without it there are none.
  std::function<std::string_view(int32_t)> piece;
};

/// Draws the tokens of one sequence. The n-th token depends on the parameters, the logits and the
/// tokens before it only: not on the batch, nor on how often something was computed again. Nothing
/// is allocated after construction. One thread at a time.
///   Sampler s(params, context); s.accept(prompt);
///   for (...) { id = s.sample(logits, max, argmax, position); s.accept(id); }
class Sampler {
 public:
  /// Needs: validate(params, n_vocab) is ok.
  Sampler(const SamplingParams& params, const SamplerContext& context);
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;
  ~Sampler();

  /// `max_logit` and `argmax` (lowest id among equals) are of these logits, which have no NaN.
  /// `position` is the index of the token that is drawn within its sequence. A token of logit -inf
  /// is never drawn; if no other is left, argmax is. Drawing twice gives the same.
  int32_t sample(std::span<const float> logits, float max_logit, int32_t argmax, uint64_t position);
  /// How many of a row's best logits sample_top() needs to draw the very token that sample() draws
  /// from all of them; 0: it takes argmax. -1: only the whole row will do.
  int32_t n_top() const { return n_top_; }
  /// `best`: the n_top() best of the row or more, best first (all where the vocabulary has fewer);
  /// the rest as for sample(). Needs: n_top() >= 0.
  int32_t sample_top(std::span<const Candidate> best, float max_logit, int32_t argmax,
                     uint64_t position);
  /// The sequence got longer: the prompt's tokens first, then what was drawn (or put in its place).
  void accept(int32_t token);
  void accept(std::span<const int32_t> tokens);
  const SamplingParams& params() const { return params_; }

 private:
  int32_t pass_stages(int32_t argmax, uint64_t position);
  Candidate draw(uint64_t position);

  SamplingParams params_;
  bool always_argmax_ = false;
  int32_t n_top_ = -1;
  bool top_by_id_ = false;  ///< the first stage leaves the whole row, in the order of the ids
  std::vector<std::unique_ptr<Stage>> stages_;
  std::unique_ptr<Mirostat> mirostat_;
  Candidates candidates_;
  std::vector<double> weights_;
  int32_t drawn_ = -1;     ///< by mirostat, not accepted yet
  double surprise_ = 0.0;  ///< of drawn_
};

}  // namespace infer::text
