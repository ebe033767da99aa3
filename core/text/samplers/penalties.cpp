#include <cmath>
#include <vector>

#include "core/text/samplers/stage.h"
#include "core/text/samplers/token_window.h"

namespace infer::text {
namespace {

class LogitBiases final : public Stage {
 public:
  explicit LogitBiases(std::vector<LogitBias> biases) {
    std::ranges::stable_sort(biases, {}, &LogitBias::id);
    for (const LogitBias& b : biases) {
      if (ids_.empty() || ids_.back() != b.id) {
        ids_.push_back(b.id);
        sums_.push_back(b.bias);
      } else {
        sums_.back() += b.bias;
      }
    }
  }
  void apply(Candidates& candidates, const DrawKey&) override {
    candidates.edit(ids_, [&](size_t i, float logit) { return logit + sums_[i]; });
  }
  size_t n_edit() const override { return ids_.size(); }

 private:
  std::vector<int32_t> ids_;
  std::vector<float> sums_;
};

/// Makes tokens of the window less likely. Counts are kept by id, so that a draw touches the tokens
/// of the window only.
class Penalties final : public Stage {
 public:
  Penalties(const SamplingParams& p, const StageContext& context)
      : window_(window_size(p.penalty_last_n, context.max_tokens)),
        repeat_(p.penalty_repeat),
        freq_(p.penalty_freq),
        present_(p.penalty_present) {
    ids_.reserve(window_.capacity() + 1);  // a token comes before the oldest goes
    counts_.reserve(window_.capacity() + 1);
  }

  void apply(Candidates& candidates, const DrawKey&) override {
    candidates.edit(ids_, [&](size_t i, float logit) {
      const float scaled = logit <= 0.0f ? logit * repeat_ : logit / repeat_;
      return scaled - (static_cast<float>(counts_[i]) * freq_ + present_);
    });
  }

  void accept(int32_t token) override {
    const std::optional<int32_t> old = window_.push(token);
    if (old == token) return;
    count(token);
    if (old) uncount(*old);
  }

  size_t n_edit() const override { return window_.capacity(); }

 private:
  size_t find(int32_t token) const {
    return static_cast<size_t>(std::ranges::lower_bound(ids_, token) - ids_.begin());
  }
  void count(int32_t token) {
    const size_t at = find(token);
    if (at == ids_.size() || ids_[at] != token) {
      ids_.insert(ids_.begin() + static_cast<ptrdiff_t>(at), token);
      counts_.insert(counts_.begin() + static_cast<ptrdiff_t>(at), 0);
    }
    ++counts_[at];
  }
  void uncount(int32_t token) {
    const size_t at = find(token);
    if (--counts_[at] > 0) return;
    ids_.erase(ids_.begin() + static_cast<ptrdiff_t>(at));
    counts_.erase(counts_.begin() + static_cast<ptrdiff_t>(at));
  }

  TokenWindow window_;
  float repeat_, freq_, present_;
  std::vector<int32_t> ids_;     ///< of the window's tokens, ascending
  std::vector<int32_t> counts_;  ///< how often each of them is in the window
};

}  // namespace

std::unique_ptr<Stage> make_logit_bias(const SamplingParams& params) {
  if (params.logit_bias.empty()) return nullptr;
  return std::make_unique<LogitBiases>(params.logit_bias);
}

std::unique_ptr<Stage> make_penalties(const SamplingParams& p, const StageContext& context) {
  const bool off = p.penalty_repeat == 1.0f && p.penalty_freq == 0.0f && p.penalty_present == 0.0f;
  if (off || window_size(p.penalty_last_n, context.max_tokens) == 0) return nullptr;
  return std::make_unique<Penalties>(p, context);
}

}  // namespace infer::text
