#include <cmath>

#include "core/text/samplers/stage.h"

namespace infer::text {
namespace {

/// Divides the logits. With a range the divisor follows the entropy: sure of itself, the model is
/// sampled cold. Source: llama.cpp's "dynamic temperature" (pull request 4972).
class Temperature final : public Stage {
 public:
  explicit Temperature(const SamplingParams& p)
      : temp_(p.temp), range_(p.dynatemp_range), exponent_(p.dynatemp_exponent) {}

  void apply(Candidates& candidates, const DrawKey&) override {
    if (temp_ <= 0.0) return candidates.keep_best();
    const double temp = range_ > 0.0 ? dynamic(candidates) : temp_;
    const double largest = std::abs(candidates.best()->logit) / temp;
    // So cold that the best logit is no float any more.
    if (!(largest <= std::numeric_limits<float>::max())) return candidates.keep_best();
    if (temp != 1.0) candidates.scale(temp);
  }

 private:
  double dynamic(Candidates& candidates) const {
    const size_t n = candidates.list().size();
    if (n < 2) return temp_;
    const double share = entropy_of(candidates, softmax_of(candidates)) / std::log(n);
    const double least = std::max(0.0, temp_ - range_);
    return least + (temp_ + range_ - least) * std::pow(std::clamp(share, 0.0, 1.0), exponent_);
  }

  double temp_, range_, exponent_;
};

}  // namespace

std::unique_ptr<Stage> make_temperature(const SamplingParams& params) {
  if (params.temp == 1.0f && !(params.dynatemp_range > 0.0f)) return nullptr;
  return std::make_unique<Temperature>(params);
}

}  // namespace infer::text
