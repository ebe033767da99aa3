#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "core/text/sampler_params.h"
#include "core/text/samplers/candidates.h"

namespace infer::text {

/// What a draw depends on besides logits and history.
struct DrawKey {
  uint64_t seed = 0, position = 0;
};

/// One step on the way from logits to a token. After construction nothing allocates.
class Stage {
 public:
  virtual ~Stage();
  /// May leave nothing; needs something to begin with. Does not change what later calls see.
  virtual void apply(Candidates& candidates, const DrawKey& key) = 0;
  /// The sequence got longer by a token.
  virtual void accept(int32_t token);
  /// Tokens whose logits it may change one by one.
  virtual size_t n_edit() const;
};

/// What stages know of the model and the sequence.
struct StageContext {
  int32_t n_vocab = 0;
  int64_t max_tokens = 0;  ///< of a sequence
  /// Text of a token; may be empty.
  const std::function<std::string_view(int32_t)>* piece = nullptr;
};

/// Null when the parameters turn the stage off. `stream`: of the random numbers that it may take.
std::unique_ptr<Stage> make_stage(SamplerKind kind, const SamplingParams& params,
                                  const StageContext& context, uint32_t stream);

std::unique_ptr<Stage> make_logit_bias(const SamplingParams& params);
std::unique_ptr<Stage> make_penalties(const SamplingParams& params, const StageContext& context);
std::unique_ptr<Stage> make_dry(const SamplingParams& params, const StageContext& context);
std::unique_ptr<Stage> make_truncation(SamplerKind kind, const SamplingParams& params);
std::unique_ptr<Stage> make_xtc(const SamplingParams& params, uint32_t stream);
std::unique_ptr<Stage> make_temperature(const SamplingParams& params);

/// Tokens of a window of n (-1: all) in a sequence of at most max_tokens.
size_t window_size(int32_t n, int64_t max_tokens);

}  // namespace infer::text
