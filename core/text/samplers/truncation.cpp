#include <cmath>

#include "core/text/samplers/stage.h"

/// The stages that cut off unlikely (or untypical) tokens; sources at SamplingParams.
namespace infer::text {
namespace {

class TopK final : public Stage {
 public:
  explicit TopK(int32_t k) : k_(static_cast<size_t>(k)) {}
  void apply(Candidates& c, const DrawKey&) override { c.keep_top(k_); }

 private:
  size_t k_;
};

/// The fewest best tokens whose probabilities sum up to p.
class TopP final : public Stage {
 public:
  TopP(double p, size_t min_keep) : p_(p), min_keep_(min_keep) {}
  void apply(Candidates& candidates, const DrawKey&) override {
    const Softmax s = softmax_of(candidates);
    candidates.keep_mass(s, p_, min_keep_);
  }

 private:
  double p_;
  size_t min_keep_;
};

/// Tokens at least p times as likely as the best.
class MinP final : public Stage {
 public:
  MinP(double p, size_t min_keep) : log_p_(std::log(p)), min_keep_(min_keep) {}
  void apply(Candidates& c, const DrawKey&) override {
    c.keep_at_least(c.best()->logit + log_p_, min_keep_);
  }

 private:
  double log_p_;
  size_t min_keep_;
};

/// The fewest tokens whose information content lies nearest to the entropy and whose probabilities
/// sum up to p (equation 5 of the paper). -log p - H = centre - logit, so that no probability is
/// needed for the order.
class Typical final : public Stage {
 public:
  Typical(double p, size_t min_keep) : p_(p), min_keep_(min_keep) {}
  void apply(Candidates& candidates, const DrawKey&) override {
    const Softmax s = softmax_of(candidates);
    const double centre = s.log_norm - entropy_of(candidates, s);
    candidates.keep_mass(s, p_, min_keep_, centre);
  }

 private:
  double p_;
  size_t min_keep_;
};

/// Logits no more than n standard deviations of all logits below the best.
class TopNSigma final : public Stage {
 public:
  explicit TopNSigma(double n) : n_(n) {}
  void apply(Candidates& candidates, const DrawKey&) override {
    const std::span<const Candidate> list = candidates.list();
    const auto size = static_cast<double>(list.size());
    double sum = 0.0, squares = 0.0;
    for (const Candidate& c : list) sum += c.logit;
    const double mean = sum / size;
    for (const Candidate& c : list) squares += (c.logit - mean) * (c.logit - mean);
    candidates.keep_at_least(candidates.best()->logit - n_ * std::sqrt(squares / size), 1);
  }

 private:
  double n_;
};

}  // namespace

std::unique_ptr<Stage> make_truncation(SamplerKind kind, const SamplingParams& p) {
  const auto min_keep = static_cast<size_t>(std::max(p.min_keep, 1));
  if (kind == SamplerKind::kTopK && p.top_k > 0) return std::make_unique<TopK>(p.top_k);
  if (kind == SamplerKind::kTopP && p.top_p < 1.0f)
    return std::make_unique<TopP>(p.top_p, min_keep);
  if (kind == SamplerKind::kMinP && p.min_p > 0.0f)
    return std::make_unique<MinP>(p.min_p, min_keep);
  if (kind == SamplerKind::kTypicalP && p.typical_p < 1.0f)
    return std::make_unique<Typical>(p.typical_p, min_keep);
  if (kind == SamplerKind::kTopNSigma && p.top_n_sigma > 0.0f)
    return std::make_unique<TopNSigma>(p.top_n_sigma);
  return nullptr;
}

}  // namespace infer::text
