#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace infer::text {

struct Candidate {
  float logit = 0.0f;
  int32_t id = 0;
};

/// The order of candidates: higher logit first, then lower id.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// Leaves the k best of logits in `out`, best first; fewer when others are -inf. One pass over the
/// logits; `out` never holds more than 2 k entries, so that a vector with that much room allocates
/// nothing.
void select_top(std::span<const float> logits, size_t k, std::vector<Candidate>& out);

}  // namespace infer::text
