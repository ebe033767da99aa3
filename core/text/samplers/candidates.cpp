#include "core/text/samplers/candidates.h"

#include <array>
#include <cmath>

namespace infer::text {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

bool by_id(const Candidate& a, const Candidate& b) { return a.id < b.id; }

/// The best first; with a centre those whose logits are nearest to it.
struct NearerTo {
  std::optional<double> centre;
  bool operator()(const Candidate& a, const Candidate& b) const {
    if (!centre) return better(a, b);
    const double da = std::abs(a.logit - *centre), db = std::abs(b.logit - *centre);
    return da != db ? da < db : better(a, b);
  }
};

}  // namespace

void Candidates::reserve(size_t n_list, size_t n_edit) {
  list_.reserve(n_list);
  edits_.reserve(n_edit);
  if (n_list > kShort) scratch_.reserve(n_list);
}

void Candidates::reset(std::span<const float> logits, int32_t argmax) {
  row_ = logits;
  argmax_ = argmax;
  edits_.clear();
  list_.clear();
  n_sorted_ = 0;
  has_list_ = false;
  is_by_id_ = false;
  best_.reset();
}

void Candidates::reset(std::span<const Candidate> list) {
  reset(std::span<const float>(), 0);
  list_.assign(list.begin(), list.end());
  has_list_ = true;
}

void Candidates::reset_sorted(std::span<const Candidate> list) {
  while (!list.empty() && list.back().logit == -kInf) list = list.first(list.size() - 1);
  reset(list);
  n_sorted_ = list_.size();
}

size_t Candidates::find_edit(int32_t id, size_t n_edit) const {
  const auto end = edits_.begin() + static_cast<ptrdiff_t>(n_edit);
  const auto at = std::lower_bound(edits_.begin(), end, Candidate{.logit = 0.0f, .id = id}, by_id);
  return at != end && at->id == id ? static_cast<size_t>(at - edits_.begin()) : n_edit;
}

bool Candidates::is_edited(int32_t id) const {
  return find_edit(id, edits_.size()) < edits_.size();
}

void Candidates::sort_edits(size_t n_old) {
  if (n_old == 0 || n_old == edits_.size()) return;
  std::sort(edits_.begin(), edits_.end(), by_id);
}

void Candidates::make_list() {
  if (has_list_) return;
  best_ = best_of_row();
  has_list_ = true;
  is_by_id_ = true;
  auto edit = edits_.begin();
  for (size_t i = 0; i < row_.size(); ++i) {
    Candidate c{.logit = row_[i], .id = static_cast<int32_t>(i)};
    if (edit != edits_.end() && edit->id == c.id) c = *edit++;
    if (c.logit > -kInf) list_.push_back(c);
  }
}

std::span<const Candidate> Candidates::list() {
  make_list();
  return list_;
}

/// Without a list.
std::optional<Candidate> Candidates::best_of_row() const {
  std::optional<Candidate> best;
  const auto consider = [&](const Candidate& c) {
    if (c.logit > -kInf && (!best || better(c, *best))) best = c;
  };
  if (row_.empty()) return best;
  if (!is_edited(argmax_)) {
    consider({.logit = row_[static_cast<size_t>(argmax_)], .id = argmax_});
  } else {
    auto edit = edits_.begin();
    for (size_t i = 0; i < row_.size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      if (edit != edits_.end() && edit->id == id) {
        ++edit;
      } else if (!best || row_[i] > best->logit) {
        consider({.logit = row_[i], .id = id});
      }
    }
  }
  for (const Candidate& c : edits_) consider(c);
  return best;
}

bool Candidates::empty() const {
  if (has_list_) return list_.empty();
  if (!row_.empty() && !is_edited(argmax_)) return row_[static_cast<size_t>(argmax_)] == -kInf;
  const auto is_left = [](const Candidate& c) { return c.logit > -kInf; };
  return std::ranges::none_of(edits_, is_left) && !best_of_row();
}

std::optional<Candidate> Candidates::best() const {
  if (!has_list_) return best_of_row();
  if (list_.empty()) return std::nullopt;
  if (best_) return best_;
  return n_sorted_ > 0 ? list_.front() : *std::ranges::min_element(list_, better);
}

void Candidates::keep_best() {
  const std::optional<Candidate> winner = best();
  list_.clear();
  if (winner) list_.push_back(*winner);
  best_ = winner;
  has_list_ = is_by_id_ = true;
  n_sorted_ = list_.size();
}

void Candidates::resize(size_t n) {
  list_.resize(n);
  n_sorted_ = std::min(n_sorted_, n);
}

void Candidates::sort_to(size_t n) {
  n = std::min(n, list_.size());
  if (n <= n_sorted_) return;
  is_by_id_ = false;
  const auto from = list_.begin() + static_cast<ptrdiff_t>(n_sorted_);
  const auto to = list_.begin() + static_cast<ptrdiff_t>(n);
  std::nth_element(from, to, list_.end(), better);
  std::sort(from, to, better);
  n_sorted_ = n;
}

void Candidates::keep_top(size_t k) {
  if (!has_list_ && k < row_.size()) {
    // Whatever is among the k best after the edits is an edited token, or was among the
    // k + n_edit best before.
    select_top(row_, k + edits_.size(), list_);
    has_list_ = true;
    n_sorted_ = list_.size();
    if (!edits_.empty()) {
      std::erase_if(list_, [&](const Candidate& c) { return is_edited(c.id); });
      resize(std::min(k, list_.size()));
      const size_t n = list_.size();
      for (const Candidate& c : edits_) {
        if (c.logit > -kInf) list_.push_back(c);
      }
      if (list_.size() > n) n_sorted_ = 0;
    }
  }
  make_list();
  if (k >= list_.size()) return;
  sort_to(k);
  resize(k);
}

void Candidates::keep_at_least(double threshold, size_t min_keep) {
  if (!has_list_) {
    auto edit = edits_.begin();
    for (size_t i = 0; i < row_.size(); ++i) {
      Candidate c{.logit = row_[i], .id = static_cast<int32_t>(i)};
      if (edit != edits_.end() && edit->id == c.id) c = *edit++;
      if (c.logit >= threshold && c.logit > -kInf) list_.push_back(c);
    }
    if (list_.size() >= min_keep) {
      best_ = best_of_row();
      has_list_ = true;
      is_by_id_ = true;
    } else {
      list_.clear();
      keep_top(min_keep);
    }
    return;
  }
  const auto is_below = [&](const Candidate& c) { return !(c.logit >= threshold); };
  const auto n_below = static_cast<size_t>(std::ranges::count_if(list_, is_below));
  if (list_.size() - n_below < min_keep) return keep_top(min_keep);
  std::erase_if(list_, is_below);
  n_sorted_ = std::min(n_sorted_, list_.size());
}

void Candidates::drop_best(size_t n) {
  make_list();
  sort_to(n);
  n = std::min(n, list_.size());
  list_.erase(list_.begin(), list_.begin() + static_cast<ptrdiff_t>(n));
  n_sorted_ -= n;
  best_.reset();
}

void Candidates::scale(double temp) {
  make_list();
  const double factor = 1.0 / temp;
  bool is_gone = false;
  for (Candidate& c : list_) {
    c.logit = static_cast<float>(c.logit * factor);
    is_gone |= c.logit == -kInf;
  }
  if (best_) best_->logit = static_cast<float>(best_->logit * factor);
  if (!is_gone) return;
  std::erase_if(list_, [](const Candidate& c) { return c.logit == -kInf; });
  n_sorted_ = std::min(n_sorted_, list_.size());
}

void Candidates::sort_by_id() {
  make_list();
  if (!is_by_id_) std::ranges::sort(list_, by_id);
  is_by_id_ = true;
  n_sorted_ = 0;
}

void Candidates::keep_mass(const Softmax& softmax, double mass, size_t min_keep,
                           std::optional<double> centre) {
  make_list();
  const bool is_sorted = !centre && n_sorted_ == list_.size();
  if (!is_sorted && list_.size() > kShort)
    return keep_mass_of_long(softmax, mass, min_keep, centre);
  if (!is_sorted) {
    std::ranges::sort(list_, NearerTo{centre});
    is_by_id_ = false;
  }
  double sum = 0.0;
  size_t n = 0;
  while (n < list_.size() && (n < min_keep || n == 0 || sum < mass))
    sum += std::exp(list_[n++].logit - softmax.log_norm);
  list_.resize(n);
  n_sorted_ = centre ? 0 : n;
  if (centre) best_.reset();
}

/// Shares out the candidates over steps of their order, finds the step in which the mass is
/// reached, and sorts that one. The order in the list stays.
void Candidates::keep_mass_of_long(const Softmax& softmax, double mass, size_t min_keep,
                                   std::optional<double> centre) {
  constexpr size_t kSteps = 1024;
  constexpr double kStepsPerNat = 32.0;
  const NearerTo nearer{centre};
  const auto step_of = [&](const Candidate& c) {
    const double distance = centre ? std::abs(c.logit - *centre) : softmax.max - c.logit;
    return static_cast<size_t>(std::min(distance * kStepsPerNat, kSteps - 1.0));
  };
  std::array<double, kSteps> sums{};
  std::array<size_t, kSteps> counts{};
  for (const Candidate& c : list_) {
    const size_t step = step_of(c);
    sums[step] += std::exp(c.logit - softmax.log_norm);
    ++counts[step];
  }
  double sum = 0.0;
  size_t n = 0, cut = 0;  // sums over the steps before the cut
  while (cut < kSteps && (sum + sums[cut] < mass || n + counts[cut] < min_keep)) {
    sum += sums[cut];
    n += counts[cut++];
  }
  if (cut == kSteps) return;  // rounding: all together do not reach it
  scratch_.clear();
  for (const Candidate& c : list_) {
    if (step_of(c) == cut) scratch_.push_back(c);
  }
  std::ranges::sort(scratch_, nearer);
  size_t m = 0;
  while (m < scratch_.size() && (n + m < min_keep || n + m == 0 || sum < mass))
    sum += std::exp(scratch_[m++].logit - softmax.log_norm);
  std::erase_if(list_, [&](const Candidate& c) {
    const size_t step = step_of(c);
    return step > cut || (step == cut && (m == 0 || nearer(scratch_[m - 1], c)));
  });
  n_sorted_ = 0;
  if (centre) best_.reset();
}

Softmax softmax_of(Candidates& candidates) {
  const std::span<const Candidate> list = candidates.list();
  Softmax s{.max = candidates.best()->logit};
  double total = 0.0;
  for (const Candidate& c : list) total += std::exp(c.logit - s.max);
  s.log_norm = s.max + std::log(total);
  return s;
}

double entropy_of(Candidates& candidates, const Softmax& softmax) {
  double sum = 0.0;
  for (const Candidate& c : candidates.list()) {
    const double log_p = c.logit - softmax.log_norm;
    sum -= std::exp(log_p) * log_p;
  }
  return sum;
}

}  // namespace infer::text
