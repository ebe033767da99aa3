#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "gguf/reader.h"

namespace infer::model {

/// A LoRA adapter as llama.cpp's convert_lora_to_gguf writes it: for some matrices W [n, k] of a
/// model two thin ones, W + alpha / rank * B A with A [rank, k] and B [n, rank]. Immutable and safe
/// to share between engines. Source: arXiv:2106.09685.
class Adapter {
 public:
  struct Pair {
    std::string_view tensor;  ///< the model's name for W
    const gguf::TensorInfo* a = nullptr;
    const gguf::TensorInfo* b = nullptr;
    int64_t rank() const { return a->view.ne[1]; }
  };

  /// Checks what can be checked without the model. Errors: kUnsupported, kCorrupt naming file, and
  /// key or tensor.
  static Result<std::shared_ptr<const Adapter>> load(std::shared_ptr<const gguf::Reader> file);

  const gguf::Reader& file() const { return *file_; }
  std::string_view arch() const { return arch_; }
  std::span<const Pair> pairs() const { return pairs_; }  ///< by name, ascending
  /// What B A x is times: alpha / rank, and 1 where alpha is 0.
  float scale_of(const Pair& pair) const {
    return alpha_ == 0.0f ? 1.0f : alpha_ / static_cast<float>(pair.rank());
  }

 private:
  std::shared_ptr<const gguf::Reader> file_;
  std::string_view arch_;
  float alpha_ = 0.0f;
  std::vector<Pair> pairs_;
};

inline constexpr size_t kMaxAdapters = 64;

/// Gives every linear item of the graph what the adapters add to its weight; `model` is the file
/// the graph was built from. Errors: kUnsupported for more than kMaxAdapters, another architecture,
/// or a tensor that is not computed by a linear_group (embeddings, experts); kCorrupt for wrong
/// shapes.
Result<void> attach_adapters(const gguf::Reader& model,
                             std::span<const std::shared_ptr<const Adapter>> adapters,
                             graph::Graph* graph);

}  // namespace infer::model
