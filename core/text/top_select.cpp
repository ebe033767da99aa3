#include "core/text/top_select.h"

#include <algorithm>
#include <limits>

namespace infer::text {

void select_top(std::span<const float> logits, size_t k, std::vector<Candidate>& out) {
  out.clear();
  if (k == 0) return;
  // Whoever comes later with a logit equal to the k-th best so far has a higher id and loses.
  float least = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > least)) continue;
    out.push_back({.logit = logits[i], .id = static_cast<int32_t>(i)});
    if (out.size() < 2 * k) continue;
    const auto kth = out.begin() + static_cast<ptrdiff_t>(k - 1);
    std::nth_element(out.begin(), kth, out.end(), better);
    least = kth->logit;
    out.resize(k);
  }
  if (out.size() > k) {
    std::nth_element(out.begin(), out.begin() + static_cast<ptrdiff_t>(k - 1), out.end(), better);
    out.resize(k);
  }
  std::sort(out.begin(), out.end(), better);
}

}  // namespace infer::text
