#include "core/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace infer::text {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  size_t longest = 0;
  for (const std::string& stop : stops_) longest = std::max(longest, stop.size());
  pending_.reserve(longest + 256);
}

/// Cuts the pending text before the first stop string.
bool StopMatcher::find_stop() {
  size_t best_begin = 0, best_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_begin = begin;
      best_end = end;
    }
  }
  if (best_end == std::string::npos) return false;
  pending_.resize(best_begin);
  return true;
}

/// Length of the longest end of the pending text that begins a stop string.
size_t StopMatcher::held_back() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, pending_.size()); n > longest; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) longest = n;
    }
  }
  return longest;
}

std::string_view StopMatcher::push(std::string_view text) {
  pending_.erase(0, n_given_);
  n_given_ = 0;
  if (matched_) return {};
  pending_.append(text);
  matched_ = find_stop();
  n_given_ = matched_ ? pending_.size() : pending_.size() - held_back();
  n_out_ += static_cast<int64_t>(n_given_);
  return {pending_.data(), n_given_};
}

std::string_view StopMatcher::finish() {
  pending_.erase(0, n_given_);
  n_given_ = pending_.size();
  n_out_ += static_cast<int64_t>(n_given_);
  return pending_;
}

}  // namespace infer::text
