#include "tests/unit/sampler_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

namespace infer::text::reference {
namespace {

constexpr double kGone = -std::numeric_limits<double>::infinity();
using Logits = std::vector<double>;  ///< by id; kGone: cut off

std::vector<double> softmax(const Logits& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (double x : logits) p.push_back(x == kGone ? 0.0 : std::exp(x - most));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

double entropy(const std::vector<double>& p) {
  double h = 0.0;
  for (double x : p) h -= x > 0.0 ? x * std::log(x) : 0.0;
  return h;
}

/// Ids that are left, best first.
std::vector<size_t> ranked(const Logits& logits) {
  std::vector<size_t> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != kGone) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  return order;
}

void keep_only(Logits& logits, const std::vector<size_t>& order, size_t n) {
  Logits kept(logits.size(), kGone);
  for (size_t i = 0; i < std::min(n, order.size()); ++i) kept[order[i]] = logits[order[i]];
  logits = kept;
}

/// The fewest of `order` whose probabilities reach `mass`.
size_t count_to(const std::vector<double>& p, const std::vector<size_t>& order, double mass,
                size_t min_keep) {
  double sum = 0.0;
  for (size_t n = 1; n <= order.size(); ++n) {
    sum += p[order[n - 1]];
    if (sum >= mass && n >= min_keep) return n;
  }
  return order.size();
}

void penalise(Logits& logits, const SamplingParams& p, const Past& past) {
  const size_t n = past.tokens.size();
  const size_t window =
      p.penalty_last_n < 0 ? n : std::min(n, static_cast<size_t>(p.penalty_last_n));
  for (size_t id = 0; id < logits.size(); ++id) {
    const auto seen = std::count(past.tokens.end() - static_cast<ptrdiff_t>(window),
                                 past.tokens.end(), static_cast<int32_t>(id));
    if (seen == 0 || logits[id] == kGone) continue;
    logits[id] = logits[id] > 0.0 ? logits[id] / p.penalty_repeat : logits[id] * p.penalty_repeat;
    logits[id] -= static_cast<double>(seen) * p.penalty_freq + p.penalty_present;
  }
}

/// Tokens behind the last one in which the text of a breaker ends.
size_t free_tokens(const SamplingParams& p, const Past& past) {
  std::string text;
  std::vector<size_t> ends;
  for (int32_t id : past.tokens) {
    if (!past.pieces.empty()) text += past.pieces.at(static_cast<size_t>(id));
    ends.push_back(text.size());
  }
  size_t last = 0;  // one past the last byte of the last breaker
  for (const std::string& breaker : p.dry_breakers) {
    for (size_t at = text.find(breaker); at != std::string::npos; at = text.find(breaker, at + 1))
      last = std::max(last, at + breaker.size());
  }
  if (last == 0) return past.tokens.size();
  const auto token = std::lower_bound(ends.begin(), ends.end(), last);
  return static_cast<size_t>(ends.end() - token) - 1;
}

void avoid_repetition(Logits& logits, const SamplingParams& p, const Past& past) {
  std::vector<int32_t> h = past.tokens;
  if (p.dry_penalty_last_n >= 0 && h.size() > static_cast<size_t>(p.dry_penalty_last_n))
    h.erase(h.begin(), h.end() - p.dry_penalty_last_n);
  const size_t most = std::min(h.size(), free_tokens(p, past));
  const auto allowed = static_cast<size_t>(p.dry_allowed_length);
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!past.pieces.empty() && std::ranges::any_of(p.dry_breakers, [&](const std::string& b) {
          return past.pieces.at(id).find(b) != std::string::npos;
        }))
      continue;
    bool found = false;
    size_t longest = 0;
    // h[i] followed a copy of the last n tokens; the first of the window follows nothing.
    for (size_t i = 1; i < h.size(); ++i) {
      if (h[i] != static_cast<int32_t>(id)) continue;
      size_t n = 0;
      while (n < std::min(i, most) && h[i - 1 - n] == h[h.size() - 1 - n]) ++n;
      if (n < allowed) continue;
      found = true;
      longest = std::max(longest, n);
    }
    if (found)
      logits[id] -= p.dry_multiplier * std::pow(p.dry_base, static_cast<double>(longest - allowed));
  }
}

void typical(Logits& logits, double mass, size_t min_keep) {
  const std::vector<double> p = softmax(logits);
  const double h = entropy(p);
  std::vector<size_t> order = ranked(logits);
  const auto distance = [&](size_t i) { return std::abs(-std::log(p[i]) - h); };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return distance(a) < distance(b) - 1e-12; });
  keep_only(logits, order, count_to(p, order, mass, min_keep));
}

void top_n_sigma(Logits& logits, double n) {
  const std::vector<size_t> order = ranked(logits);
  double mean = 0.0, variance = 0.0;
  for (size_t i : order) mean += logits[i] / static_cast<double>(order.size());
  for (size_t i : order)
    variance += (logits[i] - mean) * (logits[i] - mean) / static_cast<double>(order.size());
  const double least = logits[order[0]] - n * std::sqrt(variance);
  for (double& x : logits) x = x < least ? kGone : x;
}

void exclude_top(Logits& logits, double threshold, size_t min_keep) {
  const std::vector<double> p = softmax(logits);
  const std::vector<size_t> order = ranked(logits);
  size_t n_top = 0;
  while (n_top < order.size() && p[order[n_top]] >= threshold) ++n_top;
  if (n_top < 2 || order.size() - (n_top - 1) < min_keep) return;
  for (size_t i = 0; i + 1 < n_top; ++i) logits[order[i]] = kGone;
}

void heat(Logits& logits, const SamplingParams& p) {
  const std::vector<size_t> order = ranked(logits);
  double temp = p.temp;
  if (temp > 0.0 && p.dynatemp_range > 0.0f && order.size() > 1) {
    const double least = std::max(0.0, temp - p.dynatemp_range), most = temp + p.dynatemp_range;
    const double share = entropy(softmax(logits)) / std::log(static_cast<double>(order.size()));
    temp = least + (most - least) * std::pow(share, static_cast<double>(p.dynatemp_exponent));
  }
  if (temp <= 0.0) return keep_only(logits, order, 1);
  for (double& x : logits) x = x == kGone ? kGone : x / temp;
}

void apply(SamplerKind kind, Logits& logits, const SamplingParams& p, const Past& past, bool xtc) {
  const auto min_keep = static_cast<size_t>(std::max(p.min_keep, 1));
  const std::vector<size_t> order = ranked(logits);
  const std::vector<double> prob = softmax(logits);
  const bool cuts = p.mirostat == 0;
  if (kind == SamplerKind::kPenalties) penalise(logits, p, past);
  if (kind == SamplerKind::kDry && p.dry_multiplier > 0.0f) avoid_repetition(logits, p, past);
  if (kind == SamplerKind::kTemperature) heat(logits, p);
  if (kind == SamplerKind::kTopK && cuts && p.top_k > 0)
    keep_only(logits, order, static_cast<size_t>(p.top_k));
  if (kind == SamplerKind::kTopP && cuts && p.top_p < 1.0f)
    keep_only(logits, order, count_to(prob, order, p.top_p, min_keep));
  if (kind == SamplerKind::kMinP && cuts && p.min_p > 0.0f) {
    const auto n = std::ranges::count_if(
        order, [&](size_t i) { return prob[i] >= prob[order[0]] * static_cast<double>(p.min_p); });
    keep_only(logits, order, std::max(static_cast<size_t>(n), min_keep));
  }
  if (kind == SamplerKind::kTypicalP && cuts && p.typical_p < 1.0f)
    typical(logits, p.typical_p, min_keep);
  if (kind == SamplerKind::kTopNSigma && cuts && p.top_n_sigma > 0.0f)
    top_n_sigma(logits, p.top_n_sigma);
  if (kind == SamplerKind::kXtc && cuts && xtc) exclude_top(logits, p.xtc_threshold, min_keep);
}

std::vector<double> branch(const std::vector<float>& row, const SamplingParams& p, const Past& past,
                           bool xtc) {
  Logits logits(row.begin(), row.end());
  for (const LogitBias& b : p.logit_bias) logits[static_cast<size_t>(b.id)] += b.bias;
  for (SamplerKind kind : p.order) apply(kind, logits, p, past, xtc);
  if (p.mirostat == 2) {
    const std::vector<double> prob = softmax(logits);
    const std::vector<size_t> order = ranked(logits);
    const auto n = std::ranges::count_if(
        order, [&](size_t i) { return -std::log2(prob[i]) <= 2.0 * p.mirostat_tau; });
    keep_only(logits, order, std::max<size_t>(static_cast<size_t>(n), 1));
  }
  return softmax(logits);
}

}  // namespace

std::vector<double> probabilities(const std::vector<float>& logits, const SamplingParams& params,
                                  const Past& past) {
  std::vector<double> p = branch(logits, params, past, false);
  const std::vector<double> q = branch(logits, params, past, true);
  const double share = params.xtc_probability;
  for (size_t i = 0; i < p.size(); ++i) p[i] = (1.0 - share) * p[i] + share * q[i];
  return p;
}

double chi_square_limit(double dof) {
  const double a = 2.0 / (9.0 * dof);
  return dof * std::pow(1.0 - a + 4.753 * std::sqrt(a), 3.0);
}

std::string compare(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  std::ostringstream out;
  const double n_draw = std::accumulate(counts.begin(), counts.end(), 0.0);
  double chi = 0.0, rare_want = 0.0, rare_got = 0.0;
  int n_bin = 0;
  const auto add = [&](double got, double want) {
    chi += (got - want) * (got - want) / want;
    ++n_bin;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double want = probabilities[i] * n_draw;
    if (want == 0.0) {
      if (counts[i] != 0) out << "token " << i << " is cut off, drawn " << counts[i] << " times; ";
    } else if (want < 10.0) {
      rare_want += want;
      rare_got += counts[i];
    } else {
      add(counts[i], want);
    }
  }
  if (rare_want >= 10.0) add(rare_got, rare_want);
  if (n_bin > 1 && !(chi <= chi_square_limit(n_bin - 1)))
    out << "chi-square " << chi << " with " << n_bin << " bins";
  return out.str();
}

}  // namespace infer::text::reference
