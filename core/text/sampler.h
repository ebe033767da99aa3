#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/text/top_select.h"

namespace infer::text {

/// Order: top-k, top-p, min-p, temperature, draw. Temperature <= 0 is greedy (lowest id among
/// equals).
struct SamplingParams {
  float temp = 0.8f;
  int32_t top_k = 40;   ///< <= 0: off
  float top_p = 0.95f;  ///< >= 1: off
  float min_p = 0.05f;  ///< share of the best candidate's probability; <= 0: off
  uint64_t seed = 0;
  int32_t min_keep = 1;  ///< top-p and min-p leave at least so many
};
/// Errors: kInvalidArgument naming the parameter (NaN, out of range).
Result<void> validate(const SamplingParams& params);

/// Philox 4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011),
/// section 4.3.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A double in [0, 1) that depends on seed and position only, so that a sample is the same whoever
/// else is in the batch, after preemption, and on any thread. Key: the seed; counter: the position;
/// the first 53 bits of the block.
double uniform_at(uint64_t seed, uint64_t position);

/// Draws a token from logits. Holds scratch memory, so that sampling allocates nothing after
/// construction.
class Sampler {
 public:
  Sampler(const SamplingParams& params, int32_t n_vocab);
  /// `max_logit` and `argmax` (lowest id among equals) are of these logits, which have no NaN.
  /// `position` is the index of the token that is drawn within its sequence. A token of logit -inf
  /// is never drawn unless all are.
  int32_t sample(std::span<const float> logits, float max_logit, int32_t argmax, uint64_t position);
  const SamplingParams& params() const { return params_; }

 private:
  void collect(std::span<const float> logits);
  void apply_top_p(double max_logit);
  void apply_min_p(double max_logit);
  void sort_to(size_t n);
  int32_t draw(double max_logit, uint64_t position);

  SamplingParams params_;
  std::vector<Candidate> candidates_;  ///< the first n_sorted_ are the best, best first
  std::vector<double> weights_;
  size_t n_sorted_ = 0;
};

}  // namespace infer::text
