#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/base/quant_types.h"
#include "tests/support/encode.h"
#include "tests/support/gguf_builder.h"

namespace infer::test {

/// What can be written, as users spell it, but for COPY and Q2_K_S, which asks for an importance
/// matrix.
inline constexpr const char* kWrittenTypes[] = {
    "F32",    "F16",    "BF16",   "Q8_0",   "Q4_0",   "Q4_1",   "Q5_0",   "Q5_1", "Q2_K",
    "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL"};

/// A small model of two layers in a float type: the bytes of a GGUF. Its token embeddings have rows
/// of 64, which no K-quant can hold; its last tensor ends where the file does. `n_ff_up` > 0: a
/// matrix more, of so many rows of 256.
inline std::string quantize_input(DType type, int64_t n_ff_up = 0) {
  GgufBuilder b;
  b.set_string("general.architecture", "llama").set_string("general.name", "old");
  b.set<uint32_t>("general.file_type", 1).set<uint32_t>("llama.block_count", 2);
  b.set<uint32_t>("llama.context_length", 128).set<uint32_t>("llama.attention.head_count", 4);
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    size_t n = 1;
    for (const int64_t d : shape) n *= static_cast<size_t>(d);
    std::vector<float> x(n);
    for (float& v : x) v = normal(rng);
    const DType t = shape.size() == 1 ? DType::kF32 : type;
    b.tensors.push_back({name, quant_type(t).gguf_id, shape, encode(t, x)});
  };
  add("token_embd.weight", {64, 96});
  add("output_norm.weight", {256});
  add("output.weight", {256, 96});
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add(layer + "attn_norm.weight", {256});
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
      add(layer + name + ".weight", {256, 32});
    add(layer + "ffn_down.weight", {512, 16});
  }
  if (n_ff_up > 0) add("blk.1.ffn_up.weight", {256, n_ff_up});
  const Bytes bytes = b.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace infer::test
