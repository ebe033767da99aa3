#include <cublas_v2.h>

#include "backends/cuda/cublas_functions.h"
#include "tests/cuda_on_cpu/emulator.h"

/// cuBLAS for the backend under emulation: the functions of cublas.cpp. Here, where the library's
/// header is at hand, what the backend declares is checked against it.
namespace infer::cuda {

static_assert(kCublasOpN == CUBLAS_OP_N && kCublasOpT == CUBLAS_OP_T);
static_assert(kCublasCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kCublasGemmDefault == CUBLAS_GEMM_DEFAULT);
static_assert(CUBLAS_STATUS_SUCCESS == 0 && sizeof(cublasStatus_t) == sizeof(int));

const CublasFunctions* cublas_functions() {
  static const CublasFunctions functions{
      [](void** handle) -> int {
        return cublasCreate_v2(reinterpret_cast<cublasHandle_t*>(handle));
      },
      [](void* handle) -> int { return cublasDestroy_v2(static_cast<cublasHandle_t>(handle)); },
      [](void* handle, cudaStream_t stream) -> int {
        return cublasSetStream_v2(static_cast<cublasHandle_t>(handle), stream);
      },
      [](void* handle, void* workspace, size_t bytes) -> int {
        return cublasSetWorkspace_v2(static_cast<cublasHandle_t>(handle), workspace, bytes);
      },
      [](void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
         int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
         int c_type, int ldc, int compute, int algo) -> int {
        return cublasGemmEx(
            static_cast<cublasHandle_t>(handle), static_cast<cublasOperation_t>(op_a),
            static_cast<cublasOperation_t>(op_b), m, n, k, alpha, a,
            static_cast<cudaDataType>(a_type), lda, b, static_cast<cudaDataType>(b_type), ldb, beta,
            c, static_cast<cudaDataType>(c_type), ldc, static_cast<cublasComputeType_t>(compute),
            static_cast<cublasGemmAlgo_t>(algo));
      }};
  return emulated::options().has_cublas ? &functions : nullptr;
}

}  // namespace infer::cuda
