#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/text/text_range.h"
#include "core/text/vocab.h"

namespace infer::text {

/// A part of a text: a special token, or (id < 0) plain text [begin, end).
struct Fragment {
  size_t begin, end;
  TokenId id;
};

/// Cuts a text at its control, unknown and user-defined tokens. Where occurrences overlap the
/// longest token of the whole text wins, not the leftmost; of equal length the leftmost
/// (llama.cpp's order). A token that strips to its right takes the white space after it along.
class SpecialMatcher {
 public:
  explicit SpecialMatcher(const Vocab& vocab);
  /// Control and unknown tokens match only with `parse_special`, and only where no byte of theirs
  /// lies in `literal` (sorted, disjoint). Time: text length x longest special token.
  void split(std::string_view text, bool parse_special, std::span<const TextRange> literal,
             std::vector<Fragment>& out) const;

 private:
  struct Node {
    int32_t first_child = -1, next_sibling = -1;
    TokenId id = -1;
    uint8_t byte = 0;
    bool hidden = false;
  };
  struct Match {
    TokenId id = -1;
    size_t len = 0;
  };
  /// A text and where control tokens may be seen in it.
  struct View {
    std::string_view text;
    bool parse_special;
    std::span<const TextRange> literal;
    bool shows(const Node& node, size_t begin, size_t end) const {
      return !node.hidden || (parse_special && !overlaps(literal, begin, end));
    }
  };
  int32_t child(int32_t node, uint8_t byte) const;
  void insert(TokenId id, std::string_view text, bool hidden);
  Match longest(const View& view, size_t at) const;
  Match exact(const View& view, size_t at, size_t len) const;
  size_t swallow(std::string_view text, size_t end, TokenId id) const;
  void split_overlapping(const View& view, size_t begin, size_t end,
                         std::vector<Fragment>& found) const;

  std::vector<Node> nodes_;
  std::array<int32_t, 256> roots_;     ///< node of a first byte, -1 if no token starts with it
  std::vector<size_t> lengths_;        ///< of all special tokens, descending, distinct
  std::vector<uint8_t> strips_right_;  ///< [n_vocab]
};

}  // namespace infer::text
