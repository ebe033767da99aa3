#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace infer::text {

/// The last n tokens of a sequence.
class TokenWindow {
 public:
  explicit TokenWindow(size_t n) : ring_(n) {}

  /// Gives the token that fell out.
  std::optional<int32_t> push(int32_t token) {
    if (ring_.empty()) return token;
    std::optional<int32_t> old;
    if (size_ == ring_.size()) {
      old = ring_[next_];
    } else {
      ++size_;
    }
    ring_[next_] = token;
    next_ = next_ + 1 == ring_.size() ? 0 : next_ + 1;
    return old;
  }
  size_t size() const { return size_; }
  size_t capacity() const { return ring_.size(); }
  /// i-th from the end: 0 is the newest. Needs: i < size().
  int32_t newest(size_t i) const {
    return ring_[next_ > i ? next_ - 1 - i : next_ + ring_.size() - 1 - i];
  }

 private:
  std::vector<int32_t> ring_;
  size_t next_ = 0, size_ = 0;
};

}  // namespace infer::text
