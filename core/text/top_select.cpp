#include "core/text/top_select.h"

#include <algorithm>
#include <limits>

namespace infer::text {

void select_top(std::span<const float> logits, size_t k, std::vector<Candidate>& out) {
  out.clear();
  if (k == 0) return;
  // Whoever comes later with a logit equal to the k-th best so far has a higher id and loses.
  float least = -std::numeric_limits<float>::infinity();
  const auto consider = [&](size_t i) {
    if (!(logits[i] > least)) return;
    out.push_back({.logit = logits[i], .id = static_cast<int32_t>(i)});
    if (out.size() < 2 * k) return;
    const auto kth = out.begin() + static_cast<ptrdiff_t>(k - 1);
    std::nth_element(out.begin(), kth, out.end(), better);
    least = kth->logit;
    out.resize(k);
  };
  // Nearly all blocks of a long row hold nothing of interest; the compiler compares them as
  // vectors.
  constexpr size_t kBlock = 32;
  size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock) {
    int any = 0;
    for (size_t j = 0; j < kBlock; ++j) any |= logits[i + j] > least;
    if (any == 0) continue;
    for (size_t j = 0; j < kBlock; ++j) consider(i + j);
  }
  for (; i < logits.size(); ++i) consider(i);
  if (out.size() > k) {
    std::nth_element(out.begin(), out.begin() + static_cast<ptrdiff_t>(k - 1), out.end(), better);
    out.resize(k);
  }
  std::sort(out.begin(), out.end(), better);
}

}  // namespace infer::text
