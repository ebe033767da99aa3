#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "core/text/top_select.h"

namespace infer::text {

/// Probabilities of candidates at temperature 1: p = exp(logit - log_norm).
struct Softmax {
  double max = 0.0, log_norm = 0.0;
};
/// The tokens that can still be drawn, on their way through the stages of a sampler.
/// They begin as the row of logits itself with a few changed entries ("edits"). A list is made when
/// a stage needs one: short by a stage that keeps few (top-k over a vocabulary of 262,144 copies
/// nothing), else of the whole vocabulary, in the order of the ids. Tokens of logit -inf are never
/// in the list. What is drawn does not depend on the order inside the list.
class Candidates {
 public:
  static constexpr size_t kShort = 256;
  /// Room for what reset() and the stages need, so that they allocate nothing. Lists of at most
  /// kShort are sorted where they are.
  void reserve(size_t n_list, size_t n_edit);
  /// Needs: argmax is the best of logits (lowest id among equals); the row outlives the use.
  void reset(std::span<const float> logits, int32_t argmax);
  /// Begins with a list in any order.
  void reset(std::span<const Candidate> list);
  /// Begins with a list, best first, of which those of logit -inf are left out.
  void reset_sorted(std::span<const Candidate> list);

  /// Replaces the logits of `ids` (ascending, no duplicates) that are still there by
  /// f(index in ids, logit). What becomes -inf is gone, what overflows becomes the largest float.
  template <class F>
  void edit(std::span<const int32_t> ids, F&& f);
  /// Divides all logits by a temperature > 0.
  void scale(double temp);

  /// The list; made if there is none.
  std::span<const Candidate> list();
  bool empty() const;
  /// The best; nothing if no token is left.
  std::optional<Candidate> best() const;

  void keep_best();
  void keep_top(size_t k);
  /// Those with logit >= threshold, but at least the min_keep best.
  void keep_at_least(double threshold, size_t min_keep);
  /// Keeps the fewest whose probabilities sum up to `mass`, but at least min_keep: the best, or
  /// those whose logits are nearest to `centre`. Sorts only where the cut lies.
  void keep_mass(const Softmax& softmax, double mass, size_t min_keep,
                 std::optional<double> centre = {});
  /// Leaves out the n best.
  void drop_best(size_t n);
  void sort_by_id();

 private:
  size_t find_edit(int32_t id, size_t n_edit) const;
  bool is_edited(int32_t id) const;
  void sort_edits(size_t n_old);
  void make_list();
  void sort_to(size_t n);
  std::optional<Candidate> best_of_row() const;
  void resize(size_t n);
  void keep_mass_of_long(const Softmax& softmax, double mass, size_t min_keep,
                         std::optional<double> centre);

  std::span<const float> row_;  ///< only without a list
  int32_t argmax_ = 0;
  std::vector<Candidate> edits_;  ///< by id; only without a list
  std::vector<Candidate> list_;   ///< the first n_sorted_ are the best, best first
  size_t n_sorted_ = 0;
  bool has_list_ = false;
  bool is_by_id_ = false;          ///< the list is in the order of the ids
  std::optional<Candidate> best_;  ///< of the list, when it is known
  std::vector<Candidate> scratch_;
};

/// Needs: at least one candidate.
Softmax softmax_of(Candidates& candidates);
/// In nats.
double entropy_of(Candidates& candidates, const Softmax& softmax);

template <class F>
void Candidates::edit(std::span<const int32_t> ids, F&& f) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto changed = [&](size_t i, float logit) {
    return logit > -kInf ? std::min(f(i, logit), std::numeric_limits<float>::max()) : -kInf;
  };
  if (has_list_) {
    bool stays_sorted = n_sorted_ == list_.size();
    for (Candidate& c : list_) {
      const auto at = std::lower_bound(ids.begin(), ids.end(), c.id);
      if (at == ids.end() || *at != c.id) continue;
      c.logit = changed(static_cast<size_t>(at - ids.begin()), c.logit);
      stays_sorted &= c.logit == -kInf;
    }
    std::erase_if(list_, [](const Candidate& c) { return c.logit == -kInf; });
    n_sorted_ = stays_sorted ? list_.size() : 0;
    best_.reset();
    return;
  }
  const size_t n_old = edits_.size();  // those stay sorted while new ones come behind them
  for (size_t i = 0; i < ids.size(); ++i) {
    if (const size_t at = find_edit(ids[i], n_old); at < n_old) {
      edits_[at].logit = changed(i, edits_[at].logit);
    } else if (static_cast<size_t>(ids[i]) < row_.size()) {
      edits_.push_back({.logit = changed(i, row_[static_cast<size_t>(ids[i])]), .id = ids[i]});
    }
  }
  sort_edits(n_old);
}

}  // namespace infer::text
