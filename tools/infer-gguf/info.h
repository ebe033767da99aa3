#pragma once

#include <string>

#include "gguf/reader.h"

namespace infer::tools {

struct InfoOptions {
  bool tensors = false;  ///< list every tensor
  bool kv = false;       ///< list every key
};

/// What a file is, for people: aligned lines.
std::string info_text(const gguf::Reader& file, const InfoOptions& options);
/// The same as one JSON object; arrays are complete, bytes that are not UTF-8 become U+FFFD.
std::string info_json(const gguf::Reader& file, const InfoOptions& options);

}  // namespace infer::tools
