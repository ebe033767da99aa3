#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

/// What the CUDA kernels' launchers share. Launchers (attention.h, linear.h, ...) are host
/// functions that put kernels into a stream and return its error; they allocate nothing, wait for
/// nothing and may be captured into a graph.
///
/// What varies from step to step is read from device memory: a launch is made for `m` rows (a row
/// bucket when it is captured), of which the first *n_live are alive. Inputs of other rows are not
/// read, outputs of other rows not written.
namespace infer::cuda {

/// Tokens in a KV block (runtime::kBlockTok).
inline constexpr int kBlockTok = 32;

/// The rows of a step, on the device.
struct Rows {
  int m = 0;                        ///< rows that the launch has room for
  const int32_t* n_live = nullptr;  ///< [1], at most m
  const int32_t* token = nullptr;   ///< [m]
  const int32_t* pos = nullptr;     ///< [m]
  const int32_t* slot = nullptr;    ///< [m]
  const int32_t* seq = nullptr;     ///< [m] index into block tables
};

/// Block tables of one cache group: physical block of slot s of sequence q is
/// blocks[q * stride + s / kBlockTok]; -1 for one that slid out of a window.
struct BlockTable {
  const int32_t* blocks = nullptr;
  int64_t stride = 0;
};

enum class NormKind : uint8_t { kNone, kRms, kLayer };

/// rms: x / sqrt(mean(x^2) + eps) * weight; layer: (x - mean) / sqrt(var + eps) * weight + bias.
/// weight and bias [k]; nullptr: ones, zeros.
struct Norm {
  NormKind kind = NormKind::kNone;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0.0f;
};

enum class GluKind : uint8_t { kSilu, kGeluTanh, kGeluErf };
enum class RopeKind : uint8_t {
  kNorm /* pairs (2i, 2i + 1) */,
  kNeox /* pairs (i, i + rope_dim / 2) */
};

/// The KV pool of one layer. f16 and bf16: k [n_block][n_kv_head][kBlockTok][head_dim], v alike.
/// q8_0 and q4_0 (head_dim a multiple of 32): each head of a block is two planes, levels
/// [kBlockTok][head_dim] (i8; q4_0 two a byte, which two: as in kernels/cpu/table.h) and then
/// scales f16 [kBlockTok][head_dim / 32]. What is rounded is the row of a head rotated as
/// kernels/cpu/generic/kv_quant.h says. Starts as zeros.
struct KvPool {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  DType type_k = DType::kF16, type_v = DType::kF16;
  int n_kv_head = 0, head_dim = 0;
};
/// Bytes of the levels (or values) of one head in a block: where its scales begin.
__host__ __device__ constexpr int64_t kv_scales_at(DType type, int64_t head_dim) {
  const int64_t n = head_dim * kBlockTok;
  return type == DType::kQ4_0 ? n / 2 : type == DType::kQ8_0 ? n : 2 * n;
}
/// Bytes of one head in a block of K or V.
__host__ __device__ constexpr int64_t kv_head_bytes(DType type, int64_t head_dim) {
  const bool quantised = type == DType::kQ4_0 || type == DType::kQ8_0;
  return kv_scales_at(type, head_dim) + (quantised ? head_dim / 32 * kBlockTok * 2 : 0);
}

}  // namespace infer::cuda
