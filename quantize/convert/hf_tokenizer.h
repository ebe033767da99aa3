#pragma once

#include <cstdint>
#include <string>

#include "core/base/result.h"
#include "gguf/header_builder.h"

namespace infer::quantize {

struct HfTokenizerInfo {
  std::string arch;     ///< general.architecture
  int64_t n_vocab = 0;  ///< rows of the embedding
};

/// Writes all `tokenizer.*` keys of a Hugging Face folder: vocabulary, pre-tokenizer, special ids
/// (of config.json and generation_config.json too), chat template. Errors: kNotFound, kIo,
/// kCorrupt, kUnsupported naming the file.
Result<void> write_tokenizer(const std::string& folder, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out);

}  // namespace infer::quantize
