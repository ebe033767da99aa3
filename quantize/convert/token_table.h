#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"
#include "core/text/tokenizer.h"
#include "gguf/header_builder.h"

namespace infer::quantize {

/// A token beside the model's own.
struct AddedToken {
  int64_t id = -1;
  std::string text{};
  bool special = false;
  bool matches_oddly = false;  ///< lstrip or single_word
  bool normalized = false;     ///< looked for in the text as the normalizer leaves it
  bool strips_right = false;   ///< rstrip: swallows the white space after it
};

/// Tokens, scores and types by id, as GGUF wants them: one for each row of the embedding.
class TokenTable {
 public:
  static constexpr int64_t kMaxTokens = int64_t{1} << 20;

  /// `name` is the file, for errors. Errors: kInvalidArgument for a size that no vocabulary has.
  static Result<TokenTable> make(std::string name, int64_t n_vocab);

  /// A token of the model. Errors: kCorrupt for an id outside or one that is taken.
  Result<void> place(int64_t id, std::string_view text, text::TokenKind kind, float score);
  /// An added token: takes the place of what is there. False if it lies outside the embedding.
  Result<bool> add(const AddedToken& token);
  /// Names the ids that have no token "[PAD<id>]". Errors: kCorrupt for a text that two ids have.
  Result<void> finish();

  int64_t size() const { return static_cast<int64_t>(text_.size()); }
  /// Id of a text, -1 without. Needs: finish().
  int64_t find(std::string_view text) const;
  const std::string& text(int64_t id) const { return text_[static_cast<size_t>(id)]; }
  text::TokenKind kind(int64_t id) const {
    return static_cast<text::TokenKind>(kind_[static_cast<size_t>(id)]);
  }
  void set_score(int64_t id, float score) { score_[static_cast<size_t>(id)] = score; }

  Result<void> write(gguf::HeaderBuilder& out, bool with_scores) const;

 private:
  void set_kind(int64_t id, text::TokenKind kind);

  std::string name_;
  std::vector<std::string> text_;
  std::vector<float> score_;
  std::vector<int32_t> kind_;
  std::vector<uint8_t> taken_;
  std::unordered_map<std::string_view, int64_t> by_text_;
};

}  // namespace infer::quantize
