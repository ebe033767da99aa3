#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace infer::quantize {

/// A SentencePiece model file: sentencepiece_model.proto's ModelProto, as much of it as a GGUF
/// needs.
struct SentencePieceModel {
  enum class Kind : uint8_t { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  struct Piece {
    std::string text;
    float score = 0.0f;
    int32_t type = 1;  ///< GGUF's numbers, which are SentencePiece's
  };
  Kind kind = Kind::kUnigram;
  std::vector<Piece> pieces;
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;
  bool byte_fallback = false;
  bool space_after = false;  ///< treat_whitespace_as_suffix
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  std::string normalizer;  ///< "identity", "nmt_nfkc", ...
  bool has_charsmap = false;
};

/// `name` is the file, for errors. Errors: kCorrupt for bytes that are no ModelProto, naming place
/// and piece; kUnsupported above 2^20 pieces.
Result<SentencePieceModel> parse_sentencepiece(std::string_view bytes, std::string_view name);

}  // namespace infer::quantize
