#include "core/text/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace infer::text {

Result<void> validate(const SamplingParams& params) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  if (!std::isfinite(params.temp)) return make_error(kCode, "temp = {} is no number", params.temp);
  if (!(params.top_p >= 0.0f)) return make_error(kCode, "top_p = {} is not >= 0", params.top_p);
  if (!(params.min_p <= 1.0f)) return make_error(kCode, "min_p = {} is not <= 1", params.min_p);
  if (params.min_keep < 0) return make_error(kCode, "min_keep = {} is negative", params.min_keep);
  return {};
}

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xd2511f53u} * c[0];
    const uint64_t p1 = uint64_t{0xcd9e8d57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return c;
}

double uniform_at(uint64_t seed, uint64_t position) {
  const auto lo = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto hi = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  const auto block = philox4x32({lo(position), hi(position), 0, 0}, {lo(seed), hi(seed)});
  return static_cast<double>((uint64_t{block[0]} << 32 | block[1]) >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params, int32_t n_vocab) : params_(params) {
  if (params.temp <= 0.0f || params.top_k == 1) return;
  const auto n = static_cast<size_t>(n_vocab);
  const auto k = static_cast<size_t>(std::max(params.top_k, 0));
  candidates_.reserve(k > 0 && k < n ? std::min(2 * k, n) : n);
  weights_.reserve(k > 0 ? std::min(k, n) : n);
}

int32_t Sampler::sample(std::span<const float> logits, float max_logit, int32_t argmax,
                        uint64_t position) {
  if (params_.temp <= 0.0f || params_.top_k == 1 || !std::isfinite(max_logit)) return argmax;
  collect(logits);
  if (params_.top_p < 1.0f) apply_top_p(max_logit);
  if (params_.min_p > 0.0f) apply_min_p(max_logit);
  return draw(max_logit, position);
}

/// Top-k. Without it the candidates stay in the order of their ids, and are sorted only as far as
/// somebody needs it.
void Sampler::collect(std::span<const float> logits) {
  n_sorted_ = 0;
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size()) {
    select_top(logits, static_cast<size_t>(params_.top_k), candidates_);
    n_sorted_ = candidates_.size();
    return;
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -INFINITY)
      candidates_.push_back({.logit = logits[i], .id = static_cast<int32_t>(i)});
  }
}

void Sampler::sort_to(size_t n) {
  n = std::min(n, candidates_.size());
  if (n <= n_sorted_) return;
  const auto from = candidates_.begin() + static_cast<ptrdiff_t>(n_sorted_);
  const auto to = candidates_.begin() + static_cast<ptrdiff_t>(n);
  std::nth_element(from, to, candidates_.end(), better);
  std::sort(from, to, better);
  n_sorted_ = n;
}

/// Keeps the shortest run of best candidates whose probabilities (at temperature 1) sum up to
/// top_p.
void Sampler::apply_top_p(double max_logit) {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += std::exp(c.logit - max_logit);
  const double enough = static_cast<double>(params_.top_p) * total;
  const auto min_keep = static_cast<size_t>(std::max(params_.min_keep, 1));
  double sum = 0.0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i == n_sorted_) sort_to(std::max<size_t>(64, 2 * i));
    sum += std::exp(candidates_[i].logit - max_logit);
    if (sum >= enough && i + 1 >= min_keep) {
      candidates_.resize(i + 1);
      n_sorted_ = std::min(n_sorted_, i + 1);
      return;
    }
  }
}

/// Keeps candidates with at least min_p times the probability of the best.
void Sampler::apply_min_p(double max_logit) {
  const double least = max_logit + std::log(static_cast<double>(params_.min_p));
  const auto min_keep = static_cast<size_t>(std::max(params_.min_keep, 1));
  const auto n = static_cast<size_t>(
      std::ranges::count_if(candidates_, [&](const Candidate& c) { return c.logit >= least; }));
  if (n < min_keep) {
    sort_to(min_keep);
    candidates_.resize(std::min(min_keep, candidates_.size()));
  } else {
    std::erase_if(candidates_, [&](const Candidate& c) { return !(c.logit >= least); });
  }
  n_sorted_ = std::min(n_sorted_, candidates_.size());
}

int32_t Sampler::draw(double max_logit, uint64_t position) {
  weights_.clear();
  double total = 0.0;
  for (const Candidate& c : candidates_) {
    weights_.push_back(std::exp((c.logit - max_logit) / params_.temp));
    total += weights_.back();
  }
  const double at = uniform_at(params_.seed, position) * total;
  double sum = 0.0;
  for (size_t i = 0; i + 1 < weights_.size(); ++i) {
    sum += weights_[i];
    if (at < sum) return candidates_[i].id;
  }
  // Rounding cannot lead past the last weight: `at` < total, and total is the same sum. The best is
  // safe in any case.
  return weights_.back() > 0.0 ? candidates_.back().id : candidates_.front().id;
}

}  // namespace infer::text
