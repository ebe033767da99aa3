#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/base/dtype.h"
#include "tests/support/gguf_image.h"

/// LoRA adapters with random numbers, and models they are merged into.
namespace infer::test {

struct LoraOptions {
  int64_t rank = 4;
  float alpha = 8.0f;
  float sigma = 0.1f;        ///< of A's and B's numbers
  DType type = DType::kF32;  ///< f32 or f16
  uint64_t seed = 1;
  /// Which tensors are adapted; empty: every matrix that adapters can be added to.
  std::function<bool(const std::string& tensor)> wanted{};
};

/// Matrices of the model whose products are plain linear layers: not embeddings, not experts.
bool is_adaptable(const GgufImage& model, const GgufTensor& tensor);
/// As convert_lora_to_gguf would write it for `model`.
GgufImage make_lora(const GgufImage& model, const LoraOptions& options);
/// W + scale * alpha / rank * B A in f64, rounded to f32; W F32 or Q8_0, A and B F32 or F16.
/// Matrices that stay as they are keep their type.
GgufImage merged(const GgufImage& model, const GgufImage& adapter, float scale);

}  // namespace infer::test
