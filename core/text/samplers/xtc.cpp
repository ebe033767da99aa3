#include <cmath>

#include "core/text/samplers/philox.h"
#include "core/text/samplers/stage.h"

namespace infer::text {
namespace {

/// Exclude top choices: at some positions, drawn with a probability, all tokens of at least the
/// threshold's probability but the least likely of them are left out.
class Xtc final : public Stage {
 public:
  Xtc(const SamplingParams& p, uint32_t stream)
      : probability_(p.xtc_probability),
        log_threshold_(std::log(static_cast<double>(p.xtc_threshold))),
        min_keep_(static_cast<size_t>(std::max(p.min_keep, 1))),
        stream_(stream) {}

  void apply(Candidates& candidates, const DrawKey& key) override {
    if (!(uniform_at(key.seed, key.position, stream_) < probability_)) return;
    const double least = softmax_of(candidates).log_norm + log_threshold_;
    const std::span<const Candidate> list = candidates.list();
    const auto n_top = static_cast<size_t>(
        std::ranges::count_if(list, [&](const Candidate& c) { return c.logit >= least; }));
    if (n_top < 2 || list.size() - (n_top - 1) < min_keep_) return;
    candidates.drop_best(n_top - 1);
  }

 private:
  double probability_, log_threshold_;
  size_t min_keep_;
  uint32_t stream_;
};

}  // namespace

std::unique_ptr<Stage> make_xtc(const SamplingParams& params, uint32_t stream) {
  // No two tokens can have more than half of the probability each.
  if (!(params.xtc_probability > 0.0f) || params.xtc_threshold > 0.5f) return nullptr;
  return std::make_unique<Xtc>(params, stream);
}

}  // namespace infer::text
