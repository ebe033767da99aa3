#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "tests/support/gguf_image.h"

/// Published tokenizer files -> GGUF tables, and the texts they are tested on.
namespace infer::test {

/// GPT-2's vocab.json and merges.txt. Errors: kNotFound, kCorrupt.
Result<GgufImage> gpt2_tokenizer(const std::filesystem::path& vocab_json,
                                 const std::filesystem::path& merges_txt, std::string_view pre);
/// A Hugging Face tokenizer.json of byte-level BPE; `.gz` is unpacked.
Result<GgufImage> tokenizer_json(const std::filesystem::path& path, std::string_view pre);
/// A SentencePiece model file.
Result<GgufImage> sentencepiece_tokenizer(const std::filesystem::path& path);

/// Whole file as bytes; `.gz` through gzip. Errors: kNotFound.
Result<std::string> read_text(const std::filesystem::path& path);
std::vector<std::string> split_lines(std::string_view text);

/// One escaped line of tricky.txt as bytes (the escapes are listed in shared/data/README.md).
std::string unescape_tricky(std::string_view line);

/// `n` lines of several scripts, numbers, white space, emoji, combining marks, mark-up and code,
/// well-formed UTF-8; the same for the same seed.
std::vector<std::string> mixed_script_lines(size_t n, uint64_t seed);

}  // namespace infer::test
