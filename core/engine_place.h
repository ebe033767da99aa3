#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/engine.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"
#include "core/runtime/executor.h"
#include "core/runtime/placement.h"

namespace infer::internal {

/// From an engine's options to stages (the graph outlives it): asks the backends what they compute,
/// what it takes and what is free, and gives fewer layers to a GPU that turned out to have too
/// little memory.
class StagePlacer {
 public:
  /// `options.inform` hears of an op that a GPU refuses, and of what then stays on the CPU. Errors:
  /// kInvalidArgument for stages or shares that cannot be; kUnsupported for an op that nobody
  /// computes.
  static Result<StagePlacer> create(const graph::Graph& graph, const EngineOptions& options,
                                    const runtime::CompileOptions& compile,
                                    const graph::Capacity& capacity,
                                    std::span<runtime::Backend* const> backends);

  std::span<const runtime::StagePlacement> stages() const { return stages_; }
  std::vector<StageInfo> describe() const;
  /// A line a device; where no GPU takes part nothing, or that memory is too little for it.
  std::vector<std::string> memory_plan() const;
  /// The stage's device has less memory than was thought. False where placement is not automatic,
  /// or the device is no GPU.
  Result<bool> give_less_to(size_t stage);
  /// How many layers are whole on GPUs.
  int n_gpu_layers() const;
  /// "1 of 2 layers on GPUs".
  std::string offloaded() const;
  /// " (layers 0-3)" for those who say where the halves of a stage run.
  std::string name_of(const StageInfo& stage) const;

 private:
  Result<void> take_explicit(const EngineOptions& options,
                             std::span<runtime::Backend* const> backends);
  Result<void> ask(const EngineOptions& options);
  Result<std::vector<std::string>> find_refused();
  Result<void> place();
  Result<void> cost_stages();
  bool is_automatic() const;
  std::vector<std::string> too_little() const;
  runtime::HalfCost use_of(int device) const;
  /// Whether layers stay on the CPU because a GPU refuses an op.
  bool refusals_matter() const;

  const graph::Graph* graph_ = nullptr;
  runtime::CompileOptions compile_;
  graph::Capacity capacity_;
  runtime::PlacementRequest request_;
  std::vector<int64_t> limits_;  ///< [gpus] what their stages may take
  std::vector<runtime::Backend*> gpus_;
  runtime::Backend* host_ = nullptr;
  bool is_explicit_ = false;
  bool gave_less_ = false;
  runtime::Placement placement_;
  std::vector<runtime::HalfCost> costs_;  ///< of its runs
  std::vector<runtime::StagePlacement> stages_;
};

}  // namespace infer::internal
