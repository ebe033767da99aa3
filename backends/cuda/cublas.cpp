#include "backends/cuda/cublas.h"

#include <library_types.h>

#include "backends/cuda/error.h"

namespace infer::cuda {

std::unique_ptr<Cublas> Cublas::create(cudaStream_t stream, std::byte* workspace,
                                       int64_t workspace_bytes) {
  const CublasFunctions* call = cublas_functions();
  void* handle = nullptr;
  if (call == nullptr || call->create(&handle) != 0) return nullptr;
  std::unique_ptr<Cublas> cublas(new Cublas(call, handle));
  if (call->set_stream(handle, stream) != 0 ||
      call->set_workspace(handle, workspace, static_cast<size_t>(workspace_bytes)) != 0)
    return nullptr;
  return cublas;
}

Cublas::~Cublas() { call_->destroy(handle_); }

/// cuBLAS counts in columns: its C [n, m] = A^T B with A = w [k, n], B = x [k, m].
Result<void> Cublas::multiply(const HalfProduct& p) {
  const float alpha = 1.0f;
  const float beta = p.add ? 1.0f : 0.0f;
  const int type = p.is_bf16 ? CUDA_R_16BF : CUDA_R_16F;
  const int status = call_->gemm_ex(handle_, kCublasOpT, kCublasOpN, p.n, p.m, p.k, &alpha, p.w,
                                    type, p.k, p.x, type, p.k, &beta, p.out, CUDA_R_32F, p.n,
                                    kCublasCompute32F, kCublasGemmDefault);
  if (status == 0) return {};
  return make_error(ErrorCode::kIo, "cuBLAS: product [{}, {}] x [{}, {}]: status {}", p.m, p.k, p.k,
                    p.n, status);
}

}  // namespace infer::cuda
