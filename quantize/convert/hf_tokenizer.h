#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "gguf/header_builder.h"

/// Tokenizer files of a Hugging Face folder -> GGUF's tokenizer.* keys.
namespace infer::quantize {

struct HfTokenizerInfo {
  std::string arch;       ///< general.architecture
  int64_t n_vocab;        ///< rows of the embedding
  std::string name = {};  ///< general.name, from which readers would guess what strips
};

/// Writes tokens, scores, types, merges, the pre-tokenizer, special ids and chat templates.
/// tokenizer.model (SentencePiece) becomes model "llama", tokenizer.json "gpt2" (byte-level BPE) or
/// "llama" (BPE with byte fallback); where both are there, tokenizer.json decides which it is.
/// `notes`, one line each, is for the log: what GGUF cannot say, and what only this project reads.
/// Errors: kNotFound without a tokenizer; kCorrupt and kUnsupported naming file, key and value.
Result<void> write_tokenizer(const std::string& folder, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out, std::vector<std::string>* notes = nullptr);

}  // namespace infer::quantize
