#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/graph/builder.h"
#include "core/model/hparams.h"
#include "gguf/reader.h"

namespace infer::model {

/// One tensor an architecture wants: name, shape in GGUF's order (k first), required or optional.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  bool required = true;
};

class Adapter;
struct HfSide;

struct BuildOptions {
  bool unfused = false;  ///< reference composition, the oracle of the fused ops
  int64_t n_ctx = 0;     ///< tokens a sequence may have; chooses between Hparams' ropes
  /// Row mixes name them by their place here. Errors name the tensor that cannot be added to.
  std::span<const std::shared_ptr<const Adapter>> adapters = {};
};

/// Everything the project knows of one architecture. Adding one: a file in archs/ and a line in
/// registry.cpp.
struct ArchDef {
  std::string_view name;  ///< general.architecture
  Result<Hparams> (*read_hparams)(const gguf::Reader& file) = nullptr;
  /// The tensors with their shapes; all are checked before anything is computed.
  std::vector<TensorSpec> (*tensors)(const Hparams& hp) = nullptr;
  /// Emits the graph. Weights are found by name (checked before, so it cannot fail).
  void (*build)(graph::Builder& g, const Hparams& hp) = nullptr;
  const HfSide* hf = nullptr;  ///< how its checkpoints are converted (core/model/hf.h)
};

std::span<const ArchDef* const> arch_registry();
const ArchDef* find_arch(std::string_view name);

}  // namespace infer::model
