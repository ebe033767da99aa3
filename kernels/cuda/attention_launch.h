#pragma once

#include "kernels/cuda/attention.h"

/// Between attention.cpp, which checks, and attention_<head_dim>.cu, which have the kernels.
namespace infer::cuda::attention {

/// Rows of a block: heads of a group; in prefill times query rows.
inline constexpr int kDecodeRows = 16, kPrefillRows = 64;

/// Heads of a group that do not fit a block's rows are shared out evenly among several blocks.
__host__ __device__ constexpr int head_chunks(int group, int rows) {
  return (group + rows - 1) / rows;
}
__host__ __device__ constexpr int heads_per_chunk(int group, int rows) {
  const int n = head_chunks(group, rows);
  return (group + n - 1) / n;
}

/// The least KV blocks of a part of decoding: one for each warp.
inline constexpr int kMinPartBlocks = 4;
/// Blocks of decoding that a multiprocessor takes at once, and has registers for.
__host__ __device__ constexpr int decode_occupancy(int head_dim) { return head_dim == 256 ? 2 : 3; }

/// Needs: arguments that have been checked, m and n_tile > 0.
template <int kDim>
cudaError_t launch_decode(const AttentionDecodeArgs& args, cudaStream_t stream);
template <int kDim>
cudaError_t launch_prefill(const AttentionPrefillArgs& args, cudaStream_t stream);

}  // namespace infer::cuda::attention
