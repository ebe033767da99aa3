#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/token_map.h"
#include "core/text/tokenizer.h"

namespace infer::text {

enum class VocabModel : uint8_t { kBpe, kSpm };

/// The tables of a vocabulary, checked. Move-only in effect: the views point into the vectors of
/// bytes below.
struct Vocab {
  VocabModel model = VocabModel::kBpe;
  std::string model_name, pre_name, file;

  std::vector<char> text_bytes;
  std::vector<std::string_view> text;  ///< [n_vocab] stored spellings, as the file has them
  std::vector<char> piece_bytes;
  std::vector<std::string_view> piece;  ///< [n_vocab] bytes inside a text
  std::vector<float> score;             ///< [n_vocab], SentencePiece only
  std::vector<TokenKind> kind;          ///< [n_vocab]
  std::vector<uint8_t> strips_right;    ///< [n_vocab] 1: swallows white space after it
  std::vector<uint8_t> eog_flag;        ///< [n_vocab]
  std::vector<TokenId> eog;             ///< ascending
  TokenMap by_text;
  SpecialIds special;
  /// Which texts add_space_prefix means. The other two are Metaspace's of tokenizer.json.
  enum class Prefix : uint8_t { kAll, kUnlessSpace, kUnlessSpaceAndFirst };
  Prefix prefix = Prefix::kAll;
  bool squeeze_spaces = false;  ///< tokenizer.ggml.remove_extra_whitespaces, SentencePiece only

  Vocab() = default;
  Vocab(Vocab&&) = default;
  Vocab& operator=(Vocab&&) = default;
  Vocab(const Vocab&) = delete;
  Vocab& operator=(const Vocab&) = delete;

  int32_t size() const { return static_cast<int32_t>(text.size()); }
  /// Whether a space goes before `part` of a text.
  bool adds_space(std::string_view part, bool first) const;
  bool has(TokenId id) const { return id >= 0 && id < size(); }
  /// Control and unknown tokens have no text unless it is asked for.
  bool is_hidden(TokenId id) const {
    return kind[id] == TokenKind::kControl || kind[id] == TokenKind::kUnknown;
  }
};

/// Reads and checks tokens, kinds, scores and special ids; merges are the BPE model's.
/// Errors: kUnsupported for an unknown model, kNotFound, kCorrupt; one line naming file, key and
/// value.
Result<Vocab> load_vocab(const gguf::Reader& file);

/// Byte of a "<0xHH>" spelling, -1 if it is none.
int byte_of_spelling(std::string_view spelling);

/// Finds EOT, EOM and the other ids that end a generation by their spellings, and settles the kinds
/// of tokens that converters are known to mislabel. Fills special.eot, special.eom, eog and
/// eog_flag.
Result<void> collect_eog(const gguf::Reader& file, Vocab& vocab);

/// Whether added tokens of a model with this name are taken to swallow the white space after them
/// where the file does not say (infer.tokenizer.strips_right): Phi-3, as in llama.cpp.
bool strips_by_name(std::string_view general_name);

/// Reads an optional special id: `fallback` when the key is missing (dropped when it lies outside
/// the vocabulary).
Result<TokenId> read_special_id(const gguf::Reader& file, std::string_view key, TokenId fallback,
                                int32_t n_vocab);

}  // namespace infer::text
