#pragma once

#include <string>
#include <vector>

#include "gguf/reader.h"

/// What a file that parses may still have wrong, judged without knowing its architecture: tokenizer
/// tables that contradict each other, and numbers in tensors that are NaN or infinite.
namespace infer::gguf {

/// One line a problem, naming key or tensor and value; empty when all is well. Touches only
/// metadata.
std::vector<std::string> audit_tokenizer(const Reader& file);
/// The same for tensor data: floats, and the scales and minima of quantised blocks. Reads every
/// tensor.
std::vector<std::string> audit_tensor_data(const Reader& file);

}  // namespace infer::gguf
