#include "kernels/cuda/row_ops.h"

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_chunk.cuh"
#include "kernels/cuda/row_decode.cuh"

/// Embedding and elementwise ops. All are bound by memory: a launch moves each operand once.
namespace infer::cuda {

// --- Embedding

/// Reads a row of the table (and of the positions) a live row, writes k floats. One kernel for all
/// types: it moves a few KiB a token, so that the uniform branch over types costs nothing.
__global__ void embed_rows(const __grid_constant__ EmbedArgs p,
                           const __grid_constant__ RowShape shape) {
  for_each_of_chunk(shape, [&](auto, int row, int column) {
    const int64_t at = static_cast<int64_t>(row) * shape.k + column;
    float x = p.scale * decode_element(p.table, load_readonly<int32_t>(p.rows.token + row), column);
    if (p.positions.n > 0)
      x += decode_element(p.positions, load_readonly<int32_t>(p.rows.pos + row), column);
    store(p.out + at, x);
  });
}

cudaError_t embed(const EmbedArgs& args, cudaStream_t stream) {
  if (weight_layout(args.table.type).n_plane == 0) return cudaErrorInvalidValue;
  if (args.positions.n > 0 && weight_layout(args.positions.type).n_plane == 0)
    return cudaErrorInvalidValue;
  RowShape shape{args.rows.m, args.table.k, args.rows.n_live, false};
  if (shape.m == 0 || shape.k == 0) return cudaSuccess;
  return launch(embed_rows, chunk_grid(shape), kChunkThreads, 0, stream, args, shape);
}

// --- Elementwise

template <class Fn>
INFER_DEVICE float map(const Fn& fn, float a, float b) {
  return fn(a, b);
}
template <class Fn>
INFER_DEVICE float4 map(const Fn& fn, float4 a, float4 b) {
  return {fn(a.x, b.x), fn(a.y, b.y), fn(a.z, b.z), fn(a.w, b.w)};
}

/// Reads k floats a live row at random rows of x, writes as many.
__global__ void gather_live_rows(const __grid_constant__ GatherArgs p,
                                 const __grid_constant__ RowShape shape) {
  for_each_of_chunk(shape, [&](auto t, int row, int column) {
    using T = decltype(t);
    const int64_t from = load_readonly<int32_t>(p.index + row);
    store(p.out + static_cast<int64_t>(row) * shape.k + column,
          load_readonly<T>(p.x + from * shape.k + column));
  });
}

cudaError_t gather_rows(const GatherArgs& args, cudaStream_t stream) {
  const RowShape shape = row_shape(args.m, args.k, args.n_live, args.x, args.out);
  if (shape.m == 0 || shape.k == 0) return cudaSuccess;
  return launch(gather_live_rows, chunk_grid(shape), kChunkThreads, 0, stream, args, shape);
}

/// Reads 8 bytes an element and a gate a row, writes 4.
__global__ void gate_add_rows(const __grid_constant__ RowShape shape, const float* y,
                              const float* gate, const float* residual, float* out) {
  for_each_of_chunk(shape, [&](auto t, int row, int column) {
    using T = decltype(t);
    const int64_t at = static_cast<int64_t>(row) * shape.k + column;
    const float g = 1.0f / (1.0f + expf(-load_readonly<float>(gate + row)));
    store(out + at, map([g](float r, float x) { return r + g * x; }, load<T>(residual + at),
                        load<T>(y + at)));
  });
}

cudaError_t gate_add(const float* y, const float* gate, const float* residual, int m, int k,
                     const int32_t* n_live, float* out, cudaStream_t stream) {
  const RowShape shape = row_shape(m, k, n_live, y, residual, out);
  if (m == 0 || k == 0) return cudaSuccess;
  return launch(gate_add_rows, chunk_grid(shape), kChunkThreads, 0, stream, shape, y, gate,
                residual, out);
}

cudaError_t code_architecture(int* architecture) {
  cudaFuncAttributes attributes;
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(gate_add_rows));
  if (error == cudaSuccess)
    *architecture = std::min(attributes.ptxVersion, attributes.binaryVersion);
  return error;
}

// --- Block copies

struct CopyArgs {
  std::byte *k, *v;
  int64_t k_bytes, v_bytes;  ///< of a block of the layer, multiples of 16
  const int2* copies;
  int n;
};

/// A thread takes 16 bytes of the block's place and goes through all copies, so that a later one
/// reads what an earlier one wrote without a barrier. Moves 2 n (k_bytes + v_bytes) bytes.
__global__ void copy_blocks_in_order(const __grid_constant__ CopyArgs p) {
  int64_t at = 16 * (static_cast<int64_t>(block_idx().x) * block_dim().x + thread_idx().x);
  std::byte* pool = p.k;
  int64_t block_bytes = p.k_bytes;
  if (at >= p.k_bytes) {
    at -= p.k_bytes;
    pool = p.v;
    block_bytes = p.v_bytes;
  }
  if (at >= block_bytes) return;
  for (int i = 0; i < p.n; ++i) {
    const int2 copy = load_readonly<int2>(p.copies + i);
    store(pool + copy.y * block_bytes + at, load<int4>(pool + copy.x * block_bytes + at));
  }
}

cudaError_t copy_blocks(const KvPool& pool, const int2* copies, int n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  constexpr int kThreads = 128;
  const CopyArgs args{pool.k,
                      pool.v,
                      pool.n_kv_head * kv_head_bytes(pool.type_k, pool.head_dim),
                      pool.n_kv_head * kv_head_bytes(pool.type_v, pool.head_dim),
                      copies,
                      n};
  const int64_t n_thread = (args.k_bytes + args.v_bytes) / 16;
  return launch(copy_blocks_in_order, static_cast<unsigned>((n_thread + kThreads - 1) / kThreads),
                kThreads, 0, stream, args);
}

}  // namespace infer::cuda
