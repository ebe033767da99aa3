#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "gguf/reader.h"
#include "quantize/source.h"

namespace infer::quantize {

struct ConvertOptions {
  std::string name{};                          ///< general.name; empty: what the folder is called
  std::vector<gguf::KeyOverride> overrides{};  ///< keys that take the place of the folder's
  /// Receives what people should know, a line each; may be empty.
  std::function<void(std::string_view)> log{};
};

/// A Hugging Face folder (config.json, safetensors, tokenizer files) as the GGUF that llama.cpp's
/// convert_hf_to_gguf makes of it, without general.file_type and general.quantization_version.
/// Matrices keep their stored type (8-bit floats: BF16, or F32 where they have scales); vectors,
/// norms, routers and learned positions are F32. Rows are made while they are read.
///
///   INFER_ASSIGN(const std::unique_ptr<Source> model, open_hf("SmolLM2-135M", {}));
///
/// All names and shapes are checked against the architecture before this returns. Errors:
/// kUnsupported for an architecture, setting, tensor or file (pickle) that is not known; kNotFound,
/// kIo, kCorrupt; one line naming file, key or tensor, and value.
Result<std::unique_ptr<Source>> open_hf(const std::string& folder, const ConvertOptions& options);

}  // namespace infer::quantize
