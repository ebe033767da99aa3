#pragma once

#include "kernels/cuda/ptx.cuh"

/// How kernels that treat elements of rows one by one share them out: a block takes kChunk elements
/// of one row.
namespace infer::cuda {

inline constexpr int kChunkThreads = 256;
inline constexpr int kChunk = 4 * kChunkThreads;

/// m rows of k elements; `wide`: k and all addresses allow 16 bytes at once.
struct RowShape {
  int m, k;
  const int32_t* n_live;
  bool wide;
};

/// Calls fn(T{}, row, column) for the block's elements of a live row, T float4 (which stands for
/// four columns) or float.
template <class Fn>
INFER_DEVICE void for_each_of_chunk(const RowShape& shape, const Fn& fn) {
  const auto row = static_cast<int>(block_idx().x);
  if (row >= *shape.n_live) return;
  const auto thread = static_cast<int>(thread_idx().x);
  const int begin = static_cast<int>(block_idx().y) * kChunk;
  if (shape.wide) {
    const int column = begin + 4 * thread;
    if (column < shape.k) fn(float4{}, row, column);
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; i += kChunkThreads) {
    const int column = begin + i + thread;
    if (column < shape.k) fn(float{}, row, column);
  }
}

/// The grid for_each_of_chunk expects; an empty one is not launched.
inline dim3 chunk_grid(const RowShape& shape) {
  return dim3(static_cast<unsigned>(shape.m),
              static_cast<unsigned>((static_cast<int64_t>(shape.k) + kChunk - 1) / kChunk));
}

template <class... Pointer>
RowShape row_shape(int m, int k, const int32_t* n_live, const Pointer*... pointers) {
  const auto bits = (reinterpret_cast<uintptr_t>(pointers) | ...);
  return {m, k, n_live, k % 4 == 0 && bits % 16 == 0};
}

}  // namespace infer::cuda
