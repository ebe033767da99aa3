#pragma once

#include <span>
#include <string>

#include "core/base/result.h"
#include "gguf/header_builder.h"
#include "quantize/imatrix.h"
#include "quantize/recipe.h"

namespace infer::quantize {

/// What makes the output's keys differ from the input's.
struct KeyChanges {
  const Target* target = nullptr;
  /// Those the input was opened with: numbers get the types in which llama.cpp writes and reads
  /// overridden keys (u32, f32).
  std::span<const gguf::KeyOverride> overrides;
  const Imatrix* imatrix = nullptr;
  std::string imatrix_file;  ///< named in quantize.imatrix.file
};

/// Keys of the input without split.*, with general.file_type and general.quantization_version of
/// the output, and quantize.imatrix.* as llama.cpp writes them.
Result<void> write_keys(const gguf::Reader& model, const KeyChanges& changes,
                        gguf::HeaderBuilder* out);

}  // namespace infer::quantize
