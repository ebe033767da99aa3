#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/text/text_range.h"
#include "core/text/vocab.h"

namespace infer::text {

/// SentencePiece's BPE: neighbours whose joined text is a token are joined, highest score first, of
/// equal score the leftmost; characters that are no token fall back to byte tokens. Control,
/// unknown and byte tokens are never the result of joining text, as in SentencePiece. Source:
/// SentencePiece, arXiv:1808.06226.
class SpmModel {
 public:
  /// The text as special tokens are to be looked for in it: U+2581 is the same as a space where
  /// tokens of spaces are user-defined (Gemma), and runs of spaces shrink where the file asks for
  /// it. `buffer` holds the result if it differs. `ranges` of the text become those of the result.
  std::string_view normalize(std::string_view text, std::string& buffer,
                             std::vector<TextRange>& ranges) const;

  struct Scratch {
    struct Pair {
      float score;
      int32_t left;
      uint32_t len;  // bytes of the joined text when the pair was found
    };
    std::string escaped;
    std::vector<uint32_t> start,
        len;  ///< [n] bytes of a symbol within its segment; len 0: joined to the left
    std::vector<int32_t> prev, next;
    std::vector<Pair> heap;
  };

  /// `vocab` must outlive the model.
  explicit SpmModel(const Vocab& vocab);

  /// Appends the tokens of a piece of text; `space_before` puts a space in front.
  void encode(std::string_view text, bool space_before, Scratch& scratch,
              std::vector<TokenId>& out) const;

 private:
  void encode_segment(std::string_view segment, Scratch& s, std::vector<TokenId>& out,
                      bool& after_unk) const;
  void add_pair(std::string_view segment, Scratch& s, int32_t left, int32_t right) const;
  void push_unknown(std::string_view bytes, std::vector<TokenId>& out, bool& after_unk) const;

  TokenMap joinable_;
  std::vector<float> score_;                  ///< [n_vocab]
  std::array<TokenId, 256> byte_id_{};        ///< -1 without byte fallback
  std::unordered_set<uint32_t> before_mark_;  ///< characters that some token has in front of U+2581
  size_t longest_ = 0;                        ///< bytes of the longest joinable token
  TokenId unk_ = -1;
  bool marks_are_spaces_ = false;
  bool squeeze_spaces_ = false;
};

}  // namespace infer::text
