#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "core/model/hf.h"
#include "quantize/convert/safetensors.h"

namespace infer::quantize {

/// A tensor of the GGUF and what it is made of.
struct MappedTensor {
  /// One stored matrix, and the scales of its 8-bit floats.
  struct Slice {
    const SafeTensor* t = nullptr;
    const SafeTensor* scale = nullptr;
    int64_t scale_rows = 0, scale_cols = 0;  ///< elements that one scale is for
  };
  std::string name;
  model::HfChange change = model::HfChange::kNone;
  std::vector<Slice> slices{};   ///< one; or one an expert, stacked
  bool is_stacked = false;       ///< the shape has a dimension for the slices
  std::vector<float> values{};   ///< without slices: the whole tensor
  DType type = DType::kF32;      ///< in the GGUF
  std::vector<int64_t> shape{};  ///< of the GGUF, k first
  int64_t n_head = 0;            ///< whose rows move; set when the hyper-parameters are known

  int64_t n_elem() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;  // each factor comes from a tensor that is in a file
    return n;
  }
};

/// Every tensor of the checkpoint in the place that `side` gives it, in the order of the files.
/// Errors: kUnsupported for a tensor without a place, kCorrupt for a missing expert or an
/// impossible shape; file and tensor are named.
Result<std::vector<MappedTensor>> map_tensors(const SafeTensors& weights, const model::HfSide& side,
                                              const model::HfConfig& config,
                                              std::vector<std::string>* notes);

/// The name in the checkpoint of what should become `gguf_name`; empty when the table has none.
std::string hf_name_of(const model::HfSide& side, std::string_view gguf_name);

}  // namespace infer::quantize
