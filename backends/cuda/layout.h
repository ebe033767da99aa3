#pragma once

#include <cstdint>
#include <vector>

#include "backends/cuda/device.h"
#include "backends/cuda/step_arrays.h"
#include "backends/cuda/weights.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"

/// What a stage needs of a device, worked out before anything is allocated: estimate() and
/// compile() read the same numbers.
namespace infer::cuda {

/// By which kernel rows meet a matrix.
enum class LinearPath : uint8_t { kGemv, kGemmQ8, kGemmHalf, kCublas, kF32 };

/// What the choice depends on besides type and rows.
struct LinearPolicy {
  bool precise = false;
  bool has_cublas = false;
  bool has_bf16 = false;
};
/// Rows from which tensor cores are busy enough with 16-bit products.
inline constexpr int kHalfRows = 65;
LinearPath linear_path(DType type, int m, const LinearPolicy& policy);
/// The same for experts, from what is known before a step: as many rows as an expert has on average
/// would meet a matrix; but a gemv also takes f32 activations of many rows, and cuBLAS none.
LinearPath expert_path(DType type, int64_t n_pair, int64_t n_expert, LinearPolicy policy);
/// Whether that path's activations are bf16: where the weights are and the device multiplies such.
inline bool takes_bf16(DType type, const LinearPolicy& policy) {
  return type == DType::kBF16 && policy.has_bf16;
}

/// Rows that steps of decoding are rounded up to, so that each captured graph serves many.
inline constexpr int kBuckets[] = {1, 2, 4, 8, 16, 32, 64};
/// The bucket of n rows, at most n_tok; n itself where it is larger than every bucket.
int bucket_of(int n, int64_t n_tok);

/// Places within the scratch of a stage; -1: not needed.
struct ScratchLayout {
  int64_t act_f32 = -1, act_f16 = -1, act_bf16 = -1, act_q = -1, act_ds = -1;
  int64_t up = -1;  ///< [n_tok, n_ff] of a GLU by cuBLAS
  int64_t attention_partial = -1, attention_counter = -1;
  int64_t counter_bytes = 0;
  int64_t results = -1;  ///< RowStats, best logits, their ids: of one turn, for its rows
  int64_t results_bytes = 0;
  int64_t sample = -1, sample_counter = -1;
  int64_t sample_counter_bytes = 0;
  int64_t expert_begin = -1, expert_pair = -1, expert_out = -1;
  int64_t cublas = -1, cublas_bytes = 0;
  std::vector<int64_t> cos_sin;       ///< [ropes] float2 [n_ctx, rope_dim / 2]
  std::vector<int64_t> alibi_slopes;  ///< [ops of the stage]
  int64_t step = -1;                  ///< StepLayout::n_bytes
  int64_t n_bytes = 0;
};

struct PoolPlace {
  int64_t k = -1, v = -1;  ///< -1: a layer of another stage
  int64_t k_block_bytes = 0, v_block_bytes = 0, n_block = 0;
};

struct StageLayout {
  WeightPlan weights;
  /// [ops of the stage] the norm op that a linear_group does itself, relative to op_begin; -1:
  /// none.
  std::vector<int> folded_norm;
  std::vector<bool> is_folded;    ///< [ops of the stage] norm ops that are done by their reader
  std::vector<int64_t> value_at;  ///< [values] place in the arena, -1: not of this stage
  int64_t arena_bytes = 0;
  std::vector<PoolPlace> pools;  ///< [cache_layers]
  int64_t kv_bytes = 0;
  StepLayout step;
  ScratchLayout scratch;
  /// About what cuBLAS and captured steps take of the device besides the four allocations:
  /// placement has to leave room for it.
  int64_t library_bytes = 0, graph_bytes = 0;
  /// Pinned memory of one step in flight.
  int64_t logits_bytes = 0, residual_bytes = 0;

  int64_t device_bytes() const {
    return weights.n_bytes + arena_bytes + kv_bytes + scratch.n_bytes;
  }
  static Result<StageLayout> plan(const graph::Graph& graph, const graph::StagePlan& plan,
                                  const runtime::CompileOptions& options, const Device& device);
};

}  // namespace infer::cuda
