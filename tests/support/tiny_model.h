#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/dtype.h"
#include "tests/support/gguf_image.h"

namespace infer::test {

struct TinyShape {
  uint32_t n_embd = 32, n_head = 4, n_kv_head = 2, head_dim = 8, n_ff = 48;
  DType type = DType::kF32;  ///< of matrices
  float sigma = 0.2f;        ///< of their elements
};

/// A complete model of two layers with random weights and a SentencePiece vocabulary of bytes and a
/// few pieces; needs no files. `arch` is "llama" or "gemma3".
GgufImage tiny_model(std::string_view arch, const TinyShape& shape = {});

}  // namespace infer::test
