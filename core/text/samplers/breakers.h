#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infer::text {

/// Follows the text of a sequence and counts the tokens since a breaker was last complete, however
/// the breaker is cut into tokens.
class Breakers {
 public:
  /// Needs: no empty text.
  explicit Breakers(std::vector<std::string> texts);

  void push(std::string_view token_text);
  /// Tokens since the one in which a breaker ended; all tokens if none did.
  size_t n_free() const { return n_free_; }
  /// Whether a breaker lies within this text.
  bool inside(std::string_view token_text) const;

 private:
  bool ends_in(std::string_view token_text);

  std::vector<std::string> texts_;
  size_t n_tail_ = 0;  ///< bytes of the past that can belong to a breaker that ends later
  std::string tail_;   ///< the last n_tail_ bytes
  std::string joint_;  ///< scratch: tail and beginning of the new text
  size_t n_free_ = 0;
};

}  // namespace infer::text
