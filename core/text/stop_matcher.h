#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infer::text {

/// Looks for stop strings in a text that arrives in pieces. Text that may be the beginning of a
/// stop string is held back until it is clear whether it is one. The result does not depend on how
/// the text is cut into pieces: the stop string that is complete first wins, the longest of those
/// that end together.
class StopMatcher {
 public:
  /// Needs: no empty string among them (the caller refuses those).
  explicit StopMatcher(std::vector<std::string> stops);

  /// Text that may go out, which ends before a stop string. Valid until the next call. After
  /// matched() always empty.
  std::string_view push(std::string_view text);
  /// What is held back, when no more text comes.
  std::string_view finish();
  bool matched() const { return matched_; }
  /// Bytes of text that went out so far.
  int64_t n_out() const { return n_out_; }

 private:
  bool find_stop();
  size_t held_back() const;

  std::vector<std::string> stops_;
  std::string pending_;  ///< [n_given_, ..) has not gone out yet
  size_t n_given_ = 0;   ///< bytes at the front that the last call returned
  int64_t n_out_ = 0;
  bool matched_ = false;
};

}  // namespace infer::text
