#pragma once

#include <cstdint>
#include <map>

#include "backends/cuda/memory.h"
#include "backends/cuda/upload.h"
#include "core/base/thread_pool.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"
#include "kernels/cuda/weight_layout.h"

namespace infer::cuda {

/// Where the weights of a stage lie in its one allocation. Matrices (embedding tables too; one that
/// is the output matrix as well is there once) keep their type, in the layout of
/// kernels/cuda/weight_layout.h; vectors and learned positions are widened to f32.
struct WeightPlan {
  struct Place {
    int64_t offset = 0, n_bytes = 0;
    bool is_matrix = false;
  };
  std::map<graph::WeightId, Place> places;
  int64_t n_bytes = 0;
  int64_t file_bytes = 0;    ///< of all of them, for progress
  int64_t upload_bytes = 0;  ///< a good size of Upload's buffers for these
};
/// Needs: types that supports() let pass. Errors: kOutOfMemory for sizes that overflow.
Result<WeightPlan> plan_weights(const graph::Graph& graph, const graph::StagePlan& plan);

/// Whether vectors of this type can be widened.
bool decodes(DType type);

class StageWeights {
 public:
  /// Uploads straight from the mapped file. Errors: kOutOfMemory; kCorrupt for a vector with a
  /// value that is not finite; CUDA's.
  static Result<StageWeights> load(const graph::Graph& graph, WeightPlan plan,
                                   const runtime::CompileOptions& options, Upload& upload);

  Matrix matrix(const graph::Graph& graph, graph::WeightId id) const;
  /// nullptr for kNoWeight.
  const float* vector(graph::WeightId id) const;
  int64_t n_bytes() const { return memory_.n_bytes(); }

 private:
  Result<void> load_matrix(const graph::Weight& w, const WeightPlan::Place& place, Upload& upload,
                           ThreadPool& threads);
  Result<void> load_vector(const graph::Weight& w, const WeightPlan::Place& place, Upload& upload);

  WeightPlan plan_;
  DeviceBuffer memory_;
};

}  // namespace infer::cuda
