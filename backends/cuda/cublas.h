#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "backends/cuda/cublas_functions.h"
#include "core/base/result.h"

namespace infer::cuda {

/// out [m, n] f32 = x [m, k] * w [n, k]^T, or out += that. x and w f16 or bf16, f32 sums.
struct HalfProduct {
  const void* x = nullptr;
  const void* w = nullptr;
  float* out = nullptr;
  int m = 0, n = 0, k = 0;
  bool is_bf16 = false;
  bool add = false;
};

/// cuBLAS with one stream. The library is large, and not everywhere: it is opened at run time, when
/// a model has weights that it multiplies.
class Cublas {
 public:
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  /// nullptr where the library is not to be had or does not start. `workspace` is the stream's, and
  /// must outlive what this returns.
  static std::unique_ptr<Cublas> create(cudaStream_t stream, std::byte* workspace,
                                        int64_t workspace_bytes);
  static bool is_available() { return cublas_functions() != nullptr; }
  Result<void> multiply(const HalfProduct& product);

 private:
  Cublas(const CublasFunctions* call, void* handle) : call_(call), handle_(handle) {}
  const CublasFunctions* call_;
  void* handle_;
};

}  // namespace infer::cuda
