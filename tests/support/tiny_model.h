#pragma once

#include <string_view>

#include "tests/support/gguf_image.h"

namespace infer::test {

/// A complete model of two layers with random F32 weights (n_embd 32, 4 heads, 2 KV heads, n_ff 48)
/// and a SentencePiece vocabulary of bytes and a few pieces; needs no files. `arch` is "llama" or
/// "gemma3".
GgufImage tiny_model(std::string_view arch);

}  // namespace infer::test
