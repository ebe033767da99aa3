#pragma once

#include "core/text/samplers/candidates.h"

namespace infer::text {

/// Mirostat 2.0: keeps the surprise of the text near tau. Tokens more surprising than mu are cut
/// off, and mu follows the surprises seen. Source: arXiv:2007.14966 and its authors' code: surprise
/// is measured in the distribution before the cut (llama.cpp measures it after).
class Mirostat {
 public:
  Mirostat(double tau, double eta) : tau_(tau), eta_(eta), mu_(2.0 * tau) {}

  /// Leaves the likeliest token when all are too surprising. Needs: a candidate.
  void truncate(Candidates& candidates);
  /// The token of this logit was drawn (from what truncate left) and is part of the text now.
  void observe(double surprise) { mu_ -= eta_ * (surprise - tau_); }
  /// In bits, in the distribution that truncate saw last.
  double surprise(double logit) const;
  double mu() const { return mu_; }

 private:
  double tau_, eta_, mu_;
  double log_norm_ = 0.0;
};

}  // namespace infer::text
