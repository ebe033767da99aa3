#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "quantize/convert/safetensors.h"

namespace infer::quantize {

/// Tensors of one file's bytes, in the order of their data; `SafeTensor::file` is 0. What is read
/// takes no more memory than a few times the header. Errors: kCorrupt, kUnsupported; `path` is
/// named.
Result<std::vector<SafeTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                  const std::string& path);

}  // namespace infer::quantize
