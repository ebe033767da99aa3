#include "core/text/samplers/mirostat.h"

#include <cmath>
#include <numbers>

namespace infer::text {

void Mirostat::truncate(Candidates& candidates) {
  log_norm_ = softmax_of(candidates).log_norm;
  candidates.keep_at_least(log_norm_ - mu_ * std::numbers::ln2, 1);
}

double Mirostat::surprise(double logit) const { return (log_norm_ - logit) / std::numbers::ln2; }

}  // namespace infer::text
