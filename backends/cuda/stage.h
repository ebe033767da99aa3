#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/cublas.h"
#include "backends/cuda/device.h"
#include "backends/cuda/layout.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/weights.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/row_ops.h"

namespace infer::cuda {

/// What a launch is made for. Everything else about a step is in device memory.
struct StepShape {
  int m = 0;                      ///< rows
  int m_tail = 0;                 ///< wanted rows of the turn
  int turn = 0;                   ///< which n_logit_rows of the wanted rows
  int n_top = 0;                  ///< candidates a wanted row
  int m_single = 0;               ///< leading rows that are alone in their sequence, rounded up
  bool is_decode = false;         ///< all are
  std::span<const int> n_tile{};  ///< query tiles of the other rows
};

/// What sample_rows() leaves for m rows, side by side, so that one copy takes it all.
struct ResultsView {
  RowStats* stats;   ///< [m]
  float* top_logit;  ///< [m, n_top]
  int32_t* top_id;   ///< [m, n_top]
  int64_t n_bytes;
};
inline ResultsView results_view(std::byte* base, int64_t m, int64_t n_top) {
  auto* stats = reinterpret_cast<RowStats*>(base);
  auto* top_logit = reinterpret_cast<float*>(stats + m);
  auto* top_id = reinterpret_cast<int32_t*>(top_logit + m * n_top);
  return {stats, top_logit, top_id, m * (int64_t{sizeof(RowStats)} + 8 * n_top)};
}

/// One stage on the device: its memory, and its ops as launches.
class Stage {
 public:
  /// All memory but the weights'. Errors: kUnsupported for a batch that is too large; kOutOfMemory.
  static Result<std::unique_ptr<Stage>> create(const graph::Graph& graph,
                                               const graph::StagePlan& plan,
                                               const runtime::CompileOptions& options,
                                               const Device& device);
  /// Weights and tables; then it can run. Options as before. Errors: as StageWeights::load.
  Result<void> load(const runtime::CompileOptions& options, SaidOnce* said);

  const StageLayout& layout() const { return layout_; }
  const Stream& stream() const { return stream_; }
  int64_t weight_bytes() const { return weights_.n_bytes(); }

  /// Ops [begin, end), in order.
  Result<void> run(int begin, int end, const StepShape& shape);
  /// What the tail leaves in the results: stats and candidates of the turn's rows.
  Result<void> sample_rows(const StepShape& shape);
  /// The block copies of the step, before its rows. copies_before: as StepFacts.
  Result<void> copy_kv_blocks(std::span<const int> copies_before);

  std::byte* step_arrays() const { return scratch_.data() + layout_.scratch.step; }
  std::byte* results() const { return scratch_.data() + layout_.scratch.results; }
  float* value(graph::ValueId v) const {
    return reinterpret_cast<float*>(arena_.data() + layout_.value_at[static_cast<size_t>(v)]);
  }
  KvPool pool(int cache_layer) const;
  /// Whether the op's output exists: what a reader does itself has none.
  bool has_output(int op) const {
    return !layout_.is_folded[static_cast<size_t>(op - plan_.op_begin)];
  }

 private:
  /// A linear_group with what does not change from step to step looked up.
  struct LinearPlan {
    LinearItems items;
    LinearEpilogue epilogue;
    Norm norm;
    const float* x = nullptr;
    int k = 0;
    bool of_token_rows = true;
    bool mixed_glu = false;  ///< gate and up of different types: two products, one after the other
  };

  Stage(const graph::Graph& graph, const graph::StagePlan& plan,
        const runtime::CompileOptions& options, const Device& device)
      : g_(graph),
        plan_(plan),
        device_(device),
        type_k_(options.type_k),
        type_v_(options.type_v),
        n_ctx_(options.n_ctx) {}

  Result<void> allocate(const runtime::CompileOptions& options);
  Result<void> fill_tables(Upload& upload);
  void plan_linears();
  LinearPlan plan_linear(const graph::Op& op, int folded_norm) const;
  Norm norm_of(const graph::NormAttrs& attrs) const;

  Result<void> run_op(int index, const StepShape& shape);
  cudaError_t embed_op(const graph::Op& op, const StepShape& shape);
  cudaError_t norm_op(const graph::Op& op, const StepShape& shape);
  cudaError_t rope_store_op(const graph::Op& op, const StepShape& shape);
  cudaError_t attention_op(int index, const graph::Op& op, const StepShape& shape);
  cudaError_t attention_single(const graph::AttentionAttrs& attrs, const AttentionArgs& args,
                               const StepShape& shape);
  cudaError_t gather_op(const graph::Op& op, const StepShape& shape);
  cudaError_t gate_add_op(const graph::Op& op, const StepShape& shape);
  cudaError_t moe_route_op(const graph::Op& op, const StepShape& shape);
  /// The prepared form of x [m, ...] that a product of n_pair pairs with experts takes; none for a
  /// gemv's.
  cudaError_t prepare_experts(const Matrix& w, graph::ValueId x, int m, const int32_t* n_live,
                              int n_pair, ExpertAct* act);
  cudaError_t moe_glu_op(const graph::Op& op, const StepShape& shape);
  cudaError_t moe_down_op(const graph::Op& op, const StepShape& shape);

  // linear.cpp
  Result<void> linear_op(const graph::Op& op, const LinearPlan& lp, const StepShape& shape);
  Result<void> run_items(const LinearPlan& lp, const LinearItems& items,
                         const LinearEpilogue& epilogue, int m, const int32_t* n_live);
  /// The forms of the input that the items take.
  cudaError_t prepare(const LinearPlan& lp, int m, const int32_t* n_live);
  Result<void> run_path(LinearPath path, const LinearPlan& lp, const LinearItems& items,
                        const LinearEpilogue& epilogue, int m, const int32_t* n_live);
  Result<void> run_cublas(const GemmArgs& args);

  template <class T>
  T* scratch(int64_t at) const {
    return at < 0 ? nullptr : reinterpret_cast<T*>(scratch_.data() + at);
  }
  template <class T>
  T* step_array(int64_t at) const {
    return StepLayout::at<T>(step_arrays(), at);
  }
  Rows rows(const StepShape& shape) const { return layout_.step.rows(step_arrays(), shape.m); }
  const int32_t* n_live(bool token_rows, const StepShape& shape) const {
    return token_rows ? step_array<int32_t>(layout_.step.live_at)
                      : step_array<int32_t>(layout_.step.turn_live_at) + shape.turn;
  }
  bool is_token_value(graph::ValueId v) const {
    return g_.values[static_cast<size_t>(v)].rows == graph::Rows::kTok;
  }
  int n_cols(graph::ValueId v) const {
    return static_cast<int>(g_.values[static_cast<size_t>(v)].n_cols);
  }
  const graph::CacheLayer& cache_layer(int id) const {
    return g_.cache_layers[static_cast<size_t>(id)];
  }
  ExpertPairs expert_pairs() const {
    return {scratch<int32_t>(layout_.scratch.expert_begin),
            scratch<int32_t>(layout_.scratch.expert_pair)};
  }

  const graph::Graph& g_;
  const graph::StagePlan& plan_;
  Device device_;
  DType type_k_, type_v_;
  int64_t n_ctx_;
  LinearPolicy policy_;
  StageLayout layout_;
  Stream stream_;
  StageWeights weights_;
  DeviceBuffer kv_, arena_, scratch_;
  std::unique_ptr<Cublas> cublas_;
  std::vector<LinearPlan> linears_;  // [op_end - op_begin], empty for other ops
};

}  // namespace infer::cuda
