#pragma once

#include <algorithm>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/launch.cuh"

namespace infer::cuda::attention {

/// More has to be asked for.
inline constexpr size_t kDefaultSharedBytes = size_t{48} * 1024;

template <int kDim>
cudaError_t launch_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  static_assert(sizeof(DecodeStorage<kDim>) <= kDefaultSharedBytes);
  const AttentionArgs& a = args.attention;
  const int chunks = head_chunks(a.n_head / a.pool.n_kv_head, kDecodeRows);
  for (int first = 0; first < a.rows.m; first += kDecodeRowsAtOnce) {
    const dim3 grid(static_cast<unsigned>(std::min(args.n_block, args.n_split)),
                    static_cast<unsigned>(a.pool.n_kv_head * chunks),
                    static_cast<unsigned>(std::min(a.rows.m - first, kDecodeRowsAtOnce)));
    const cudaError_t e = launch(attention_decode_part<kDim>, grid, kThreads,
                                 sizeof(DecodeStorage<kDim>), stream, args, first);
    if (e != cudaSuccess) return e;
  }
  return cudaSuccess;
}

template <int kDim>
cudaError_t launch_prefill(const AttentionPrefillArgs& args, cudaStream_t stream) {
  constexpr size_t kBytes = sizeof(PrefillStorage<kDim>);
  const AttentionArgs& a = args.attention;
  const int chunks = head_chunks(a.n_head / a.pool.n_kv_head, kPrefillRows);
  const dim3 grid(static_cast<unsigned>(args.n_tile),
                  static_cast<unsigned>(a.pool.n_kv_head * chunks));
  const auto kernel = attention_prefill_tile<kDim>;
  if constexpr (kBytes > kDefaultSharedBytes) {
    const cudaError_t e =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int{kBytes});
    if (e != cudaSuccess) return e;
  }
  return launch(kernel, grid, kThreads, kBytes, stream, args);
}

}  // namespace infer::cuda::attention
