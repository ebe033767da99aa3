#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/text/tokenizer.h"
#include "tests/support/gguf_image.h"

/// Vocabularies small enough to reason about, as GGUF images that tests may spoil.
namespace infer::test {

/// A token of its own kind at the end of the vocabulary.
struct ExtraToken {
  std::string text;
  text::TokenKind kind = text::TokenKind::kControl;
};

/// Model "gpt2": ids 0..255 are the bytes, then one token for each merge (two spellings and a
/// space, in stand-ins, named once before use), then `extra`.
GgufImage tiny_bpe(std::string_view pre, const std::vector<std::string>& merges,
                   const std::vector<ExtraToken>& extra = {});

/// Model "llama": <unk> 0, <s> 1, </s> 2, the byte tokens 3..258, then `pieces` with their scores,
/// then `extra`. The file says neither add_bos nor add_space_prefix.
GgufImage tiny_spm(const std::vector<std::pair<std::string, float>>& pieces,
                   const std::vector<ExtraToken>& extra = {});

/// Serialises, parses and loads.
Result<std::shared_ptr<const text::Tokenizer>> load_tokenizer(const GgufImage& image);

}  // namespace infer::test
