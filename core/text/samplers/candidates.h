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

/// The tokens that can still be drawn, on their way through the stages of a sampler.
/// They begin as the row of logits itself with a few changed entries ("edits"). A list is made when
/// a stage needs one: short by a stage that keeps few (top-k over a vocabulary of 262,144 copies
/// nothing), else of the whole vocabulary, in the order of the ids. Tokens of logit -inf are never
/// in the list. What is drawn does not depend on the order inside the list.
class Candidates {
 public:
  /// Room for what reset() and the stages need, so that they allocate nothing.
  void reserve(size_t n_list, size_t n_edit);
  /// Needs: argmax is the best of logits (lowest id among equals); the row outlives the use.
  void reset(std::span<const float> logits, int32_t argmax);
  /// Begins with a list in any order.
  void reset(std::span<const Candidate> list);

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
  /// Keeps the shortest run of best candidates whose weights (>= 0) sum up to `enough`, but at
  /// least min_keep. Sorts no further than it has to.
  template <class Weight>
  void keep_best_run(Weight&& weight, double enough, size_t min_keep) {
    keep_run(better, weight, enough, min_keep, /*by_logit=*/true);
  }
  /// The same in another order.
  template <class Order, class Weight>
  void keep_run(Order&& order, Weight&& weight, double enough, size_t min_keep) {
    keep_run(order, weight, enough, min_keep, /*by_logit=*/false);
  }
  /// Leaves out the n best.
  void drop_best(size_t n);
  void sort_by_id();

 private:
  template <class Order, class Weight>
  void keep_run(Order&& order, Weight&& weight, double enough, size_t min_keep, bool by_logit);
  size_t find_edit(int32_t id, size_t n_edit) const;
  bool is_edited(int32_t id) const;
  void sort_edits(size_t n_old);
  void make_list();
  void sort_to(size_t n);
  std::optional<Candidate> best_of_row() const;
  void resize(size_t n);

  std::span<const float> row_;  ///< only without a list
  int32_t argmax_ = 0;
  std::vector<Candidate> edits_;  ///< by id; only without a list
  std::vector<Candidate> list_;   ///< the first n_sorted_ are the best, best first
  size_t n_sorted_ = 0;
  bool has_list_ = false;
};

/// Probabilities of candidates at temperature 1: p = exp(logit - log_norm).
struct Softmax {
  double max = 0.0, log_norm = 0.0;
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
    for (Candidate& c : list_) {
      const auto at = std::lower_bound(ids.begin(), ids.end(), c.id);
      if (at != ids.end() && *at == c.id)
        c.logit = changed(static_cast<size_t>(at - ids.begin()), c.logit);
    }
    std::erase_if(list_, [](const Candidate& c) { return c.logit == -kInf; });
    n_sorted_ = 0;
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

template <class Order, class Weight>
void Candidates::keep_run(Order&& order, Weight&& weight, double enough, size_t min_keep,
                          bool by_logit) {
  make_list();
  size_t n_ready = by_logit ? n_sorted_ : 0;
  double sum = 0.0;
  for (size_t i = 0; i < list_.size(); ++i) {
    if (i == n_ready) {
      n_ready = std::min(list_.size(), std::max<size_t>(64, 4 * i));
      const auto from = list_.begin() + static_cast<ptrdiff_t>(i);
      const auto to = list_.begin() + static_cast<ptrdiff_t>(n_ready);
      std::nth_element(from, to, list_.end(), order);
      std::sort(from, to, order);
    }
    sum += weight(list_[i]);
    if (sum >= enough && i + 1 >= min_keep) {
      list_.resize(i + 1);
      break;
    }
  }
  n_sorted_ = by_logit ? std::min(n_ready, list_.size()) : 0;
}

}  // namespace infer::text
