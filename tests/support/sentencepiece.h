#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "tests/support/gguf_image.h"

/// SentencePiece models -> GGUF's tokenizer tables, read by code of its own.
namespace infer::test {

struct SentencePieces {
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int32_t> types;  ///< GGUF's numbers, which are SentencePiece's
};

/// Reads a SentencePiece ModelProto's pieces (field 1: 1 = piece, 2 = score, 3 = type). Errors:
/// kCorrupt.
Result<SentencePieces> read_sentencepiece(const std::filesystem::path& path);
/// model "llama", pre "default"; ids n..n_vocab-1 become unused paddings as llama.cpp's converter
/// names them.
void write_sentencepiece(SentencePieces pieces, int64_t n_vocab, GgufImage& out);

}  // namespace infer::test
