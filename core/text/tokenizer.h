#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/text_range.h"
#include "gguf/reader.h"

/// Text to token ids and back, from the tables inside a GGUF file.
namespace infer::text {

using TokenId = int32_t;

/// GGUF's tokenizer.ggml.token_type.
enum class TokenKind : uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SpecialIds {
  TokenId bos = -1, eos = -1, eot = -1, eom = -1, unk = -1, pad = -1;
  bool add_bos = false, add_eos = false, add_space_prefix = false;
};

struct EncodeOptions {
  bool add_special = true;    ///< BOS/EOS as the file asks
  bool parse_special = true;  ///< text such as "<|im_end|>" becomes the control token
  /// Parts of the text (sorted, disjoint) where parse_special does not hold: what a user wrote. A
  /// control token that would share a byte with one of them is text. Other tokens are the usual
  /// ones: the parts are not cut out.
  std::span<const TextRange> literal{};
};

/// Immutable after load; safe to share between threads. Copies what it needs: the Reader may go
/// first.
class Tokenizer {
 public:
  /// Errors: kUnsupported for an unknown tokenizer.ggml.model or .pre (named), kNotFound for a
  /// missing table, kCorrupt for tables that contradict.
  static Result<std::shared_ptr<const Tokenizer>> load(const gguf::Reader& file);
  virtual ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Never fails on bytes that are not UTF-8. With byte-level BPE such bytes form words of their
  /// own and keep their value; SentencePiece vocabularies give them byte tokens, so both decode to
  /// the same bytes again. Errors: kUnsupported when the pre-tokenizer's match limit is hit,
  /// kInvalidArgument above 1 GiB of text.
  Result<std::vector<TokenId>> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const;
  /// All tokens at once. Control tokens give no text unless `special`. Bytes that are not UTF-8 are
  /// kept. `ids` is a text from its beginning: the space that add_space_prefix put there is taken
  /// off again.
  std::string decode(std::span<const TokenId> ids, bool special = false) const;
  /// The bytes of one token as it stands inside a text (byte tokens: one byte; U+2581 is a space);
  /// empty for an id outside the vocabulary.
  std::string_view piece(TokenId id) const;

  int32_t n_vocab() const;
  const SpecialIds& special() const;
  TokenKind kind(TokenId id) const;
  /// EOS, EOT, EOM and every other id that ends a generation (as llama.cpp collects them:
  /// <|im_end|>, <end_of_turn>, ...).
  bool is_eog(TokenId id) const;
  /// Control and unknown tokens, which are no text unless asked for.
  bool is_hidden(TokenId id) const;
  std::span<const TokenId> eog_ids() const;
  /// Id of a token by its stored spelling, -1 if there is none.
  TokenId find(std::string_view stored) const;
  std::string_view model_name() const;  ///< "gpt2", "llama"
  std::string_view pre_name() const;

 private:
  Tokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Turns a stream of ids into text that never ends in half a UTF-8 character. One thread at a time.
/// `StreamDecoder d(*tokenizer, false); for (id : ids) out << d.push(id); out << d.finish();`
class StreamDecoder {
 public:
  /// `tokenizer` must outlive the decoder. `special` shows control tokens too.
  StreamDecoder(const Tokenizer& tokenizer, bool special);
  /// Text that is complete with this token; may be empty. Valid until the next call. Bytes that can
  /// never become UTF-8 are replaced by U+FFFD, one for each maximal ill-formed part.
  std::string_view push(TokenId id);
  /// What is left at the end: an incomplete character becomes U+FFFD.
  std::string_view finish();

 private:
  const Tokenizer& tokenizer_;
  bool special_;
  std::string in_;  // at most 3 bytes held back, then the bytes of the new token
  std::string out_;
};

}  // namespace infer::text
