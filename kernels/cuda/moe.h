#pragma once

#include "kernels/cuda/linear.h"

/// Mixture of experts. Pairs (row, choice) are grouped by expert, so that a weight is read once for
/// several rows that use it (8 by gemv, a tile's by tensor cores), and weights of experts that
/// nobody chose are not read.
namespace infer::cuda {

/// Pairs by expert: those of expert e are pair[begin[e] .. begin[e + 1]), each row * n_used +
/// choice, ascending.
struct ExpertPairs {
  int32_t* begin = nullptr;  ///< [n_expert + 1]; the last is the number of pairs
  int32_t* pair = nullptr;   ///< [m * n_used]
};

/// Activations prepared for tensor cores in one of the forms of GemmArgs, the other one nullptr:
/// the products are linear_gemm_q8's or linear_gemm_half's, for the types that those take. With
/// neither, or `precise`, they are a gemv's.
struct ExpertAct {
  ActQ8 q8;
  const uint16_t* half = nullptr;
};

/// Softmax over all experts, the n_used likeliest (ties: lower id), as graph::MoeRouteAttrs; and
/// the grouping. One or two launches.
struct MoeRouteArgs {
  const float* logits = nullptr;  ///< [m, n_expert]
  int m = 0;
  const int32_t* n_live = nullptr;
  int n_expert = 0, n_used = 0;
  bool normalise = true;
  float* route = nullptr;  ///< [m, 2 * n_used] ids as numbers, then weights
  ExpertPairs pairs;
};
cudaError_t moe_route(const MoeRouteArgs& args, cudaStream_t stream);

/// h[pair] = act(gate_e x) * up_e x, for x [m, k] f32 or prepared. h [m * n_used, n]. One launch.
struct MoeGluArgs {
  const float* x = nullptr;
  ExpertAct act;  ///< [m, k]
  int m = 0, n_used = 0;
  const int32_t* n_live = nullptr;
  Matrix gate, up;
  GluKind glu = GluKind::kSilu;
  ExpertPairs pairs;
  float* h = nullptr;
  bool precise = false;  ///< f32 activations
};
cudaError_t moe_glu(const MoeGluArgs& args, cudaStream_t stream);

/// out[row] = residual[row] + sum over choices, likeliest first, of weight * down_e h[pair]. Two
/// launches.
struct MoeDownArgs {
  const float* h = nullptr;  ///< [m * n_used, k]
  ExpertAct act;             ///< [m * n_used, k]; live are as many as there are pairs
  int m = 0, n_used = 0;
  const int32_t* n_live = nullptr;
  Matrix down;
  ExpertPairs pairs;
  const float* route = nullptr;     ///< as MoeRouteArgs
  const float* residual = nullptr;  ///< [m, n]
  float* scratch = nullptr;         ///< [m * n_used, n]
  float* out = nullptr;             ///< [m, n]
  bool precise = false;
};
cudaError_t moe_down(const MoeDownArgs& args, cudaStream_t stream);

}  // namespace infer::cuda
