#include <cmath>
#include <vector>

#include "core/text/samplers/breakers.h"
#include "core/text/samplers/stage.h"
#include "core/text/samplers/token_window.h"

namespace infer::text {
namespace {

/// "Don't repeat yourself": looks for earlier places where the sequence went on as it went now, and
/// makes the tokens that followed there less likely, the longer the match the more.
class Dry final : public Stage {
 public:
  Dry(const SamplingParams& p, const StageContext& context)
      : window_(window_size(p.dry_penalty_last_n, context.max_tokens)),
        breakers_(p.dry_breakers),
        piece_(context.piece != nullptr ? *context.piece : nullptr),
        multiplier_(p.dry_multiplier),
        base_(p.dry_base),
        allowed_(static_cast<size_t>(p.dry_allowed_length)) {
    match_.reserve(window_.capacity());
    followers_.reserve(window_.capacity());
    ids_.reserve(window_.capacity());
    losses_.reserve(window_.capacity());
  }

  void apply(Candidates& candidates, const DrawKey&) override {
    const size_t most = std::min(breakers_.n_free(), window_.size());
    if (window_.size() <= allowed_ || most < allowed_) return;
    find_matches();
    followers_.clear();
    for (size_t i = 1; i < window_.size(); ++i) {
      const size_t n = std::min(match_[i], most);
      if (n >= allowed_) followers_.push_back({.token = window_.newest(i - 1), .n = n});
    }
    if (followers_.empty()) return;
    collect_losses();
    candidates.edit(ids_, [&](size_t i, float logit) { return logit - losses_[i]; });
  }

  void accept(int32_t token) override {
    window_.push(token);
    breakers_.push(text_of(token));
  }

  size_t n_edit() const override { return window_.capacity(); }

 private:
  struct Follower {
    int32_t token = 0;
    size_t n = 0;  ///< tokens that match before it
  };

  std::string_view text_of(int32_t token) const {
    return piece_ ? piece_(token) : std::string_view();
  }

  /// match_[i]: how many tokens ending i before the newest equal those ending at the newest (the Z
  /// function of the reversed window; Gusfield, "Algorithms on Strings, Trees, and Sequences",
  /// section 1.4).
  void find_matches() {
    const size_t n = window_.size();
    match_.assign(n, 0);
    size_t left = 0, right = 0;  // the match that reaches farthest: [left, right)
    for (size_t i = 1; i < n; ++i) {
      size_t length = i < right ? std::min(right - i, match_[i - left]) : 0;
      while (i + length < n && window_.newest(length) == window_.newest(i + length)) ++length;
      match_[i] = length;
      if (i + length > right) {
        left = i;
        right = i + length;
      }
    }
  }

  /// What each follower's logit loses for the longest of its matches.
  void collect_losses() {
    std::ranges::sort(followers_, [](const Follower& a, const Follower& b) {
      return a.token != b.token ? a.token < b.token : a.n > b.n;
    });
    ids_.clear();
    losses_.clear();
    for (const Follower& f : followers_) {
      if (!ids_.empty() && ids_.back() == f.token) continue;
      const double exponent = static_cast<double>(f.n - allowed_);
      const double loss = multiplier_ * std::pow(base_, exponent);
      ids_.push_back(f.token);
      // A breaker is how a repetition ends: it stays as likely as it was.
      losses_.push_back(
          breakers_.inside(text_of(f.token))
              ? 0.0f
              : static_cast<float>(std::min<double>(loss, std::numeric_limits<float>::max())));
    }
  }

  TokenWindow window_;
  Breakers breakers_;
  std::function<std::string_view(int32_t)> piece_;
  double multiplier_, base_;
  size_t allowed_;
  std::vector<size_t> match_;  ///< [window]
  std::vector<Follower> followers_;
  std::vector<int32_t> ids_;  ///< ascending
  std::vector<float> losses_;
};

}  // namespace

std::unique_ptr<Stage> make_dry(const SamplingParams& p, const StageContext& context) {
  if (!(p.dry_multiplier > 0.0f) || window_size(p.dry_penalty_last_n, context.max_tokens) == 0)
    return nullptr;
  return std::make_unique<Dry>(p, context);
}

}  // namespace infer::text
