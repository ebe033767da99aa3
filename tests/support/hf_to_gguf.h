#pragma once

#include <filesystem>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "tests/support/gguf_image.h"

/// A Hugging Face folder (config.json, model.safetensors, tokenizer files) -> the GGUF that
/// llama.cpp's convert_hf_to_gguf writes for it. A new architecture is one row of the table in
/// hf_to_gguf.cpp and one function.
namespace infer::test {

struct ConvertOptions {
  DType type =
      DType::kF32;  ///< of matrices whose rows its blocks divide; other matrices F16, vectors F32
};

/// Errors: kUnsupported naming an unknown architecture, rope type or tensor; kCorrupt, kNotFound,
/// kIo naming the file.
Result<GgufImage> convert_hf(const std::filesystem::path& folder,
                             const ConvertOptions& options = {});

}  // namespace infer::test
