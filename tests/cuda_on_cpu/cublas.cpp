#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <optional>

#include "core/base/half.h"
#include "tests/cuda_on_cpu/machine.h"

/// The few functions of cuBLAS that the backend opens at run time, as plain loops in the order of a
/// stream. f32 sums of exact products, one chain over k; results round once. Column-major, as
/// cuBLAS is.
namespace infer::cuda::emulated {

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
};

struct Gemm {
  bool transpose_a, transpose_b;
  int m, n, k;
  float alpha, beta;
  const void *a, *b;
  void* c;
  cudaDataType a_type, b_type, c_type;
  int lda, ldb, ldc;
  long long stride_a, stride_b, stride_c;
  int n_batch;
};

size_t bytes_of(cudaDataType type) { return type == CUDA_R_32F || type == CUDA_R_32I ? 4 : 2; }

bool is_supported(cudaDataType type) {
  return type == CUDA_R_16F || type == CUDA_R_16BF || type == CUDA_R_32F;
}

float load(const void* base, cudaDataType type, long long i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(base)[i];
  const uint16_t bits = static_cast<const uint16_t*>(base)[i];
  return type == CUDA_R_16F ? f32_from_f16(bits) : f32_from_bf16(bits);
}

void store(void* base, cudaDataType type, long long i, float value) {
  if (type == CUDA_R_32F)
    static_cast<float*>(base)[i] = value;
  else
    static_cast<uint16_t*>(base)[i] =
        type == CUDA_R_16F ? f16_from_f32(value) : bf16_from_f32(value);
}

// Both operands as f32, with k contiguous.
std::vector<float> unpack(const void* base, cudaDataType type, int ld, long long offset, int n_row,
                          int k, bool k_is_contiguous) {
  std::vector<float> out(static_cast<size_t>(n_row) * static_cast<size_t>(k));
  for (int row = 0; row < n_row; ++row)
    for (int i = 0; i < k; ++i)
      out[static_cast<size_t>(row) * static_cast<size_t>(k) + static_cast<size_t>(i)] =
          load(base, type,
               offset + (k_is_contiguous ? static_cast<long long>(row) * ld + i
                                         : static_cast<long long>(i) * ld + row));
  return out;
}

void run(const Gemm& g) {
  for (int batch = 0; batch < g.n_batch; ++batch) {
    const auto a = unpack(g.a, g.a_type, g.lda, batch * g.stride_a, g.m, g.k, g.transpose_a);
    const auto b = unpack(g.b, g.b_type, g.ldb, batch * g.stride_b, g.n, g.k, !g.transpose_b);
    for (int col = 0; col < g.n; ++col)
      for (int row = 0; row < g.m; ++row) {
        const float* x = a.data() + static_cast<size_t>(row) * static_cast<size_t>(g.k);
        const float* y = b.data() + static_cast<size_t>(col) * static_cast<size_t>(g.k);
        float sum = 0;
        for (int i = 0; i < g.k; ++i) sum += x[i] * y[i];
        const long long at = batch * g.stride_c + static_cast<long long>(col) * g.ldc + row;
        const float before = g.beta == 0 ? 0 : g.beta * load(g.c, g.c_type, at);
        store(g.c, g.c_type, at, g.alpha * sum + before);
      }
  }
}

cublasStatus_t status_of(cudaError_t error) {
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

// The last element that the matrix of `rows` x `cols` with leading dimension ld reaches lies on the
// device.
bool is_on_device(const Machine& m, const void* p, cudaDataType type, int rows, int cols, int ld,
                  long long stride, int n_batch) {
  const long long n = (n_batch - 1) * stride + static_cast<long long>(cols - 1) * ld + rows;
  return m.memory.find(p, static_cast<size_t>(n) * bytes_of(type)) != nullptr;
}

cublasStatus_t enqueue(cublasHandle_t handle, const Gemm& g, cublasComputeType_t compute) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const int a_rows = g.transpose_a ? g.k : g.m, a_cols = g.transpose_a ? g.m : g.k;
  const int b_rows = g.transpose_b ? g.n : g.k, b_cols = g.transpose_b ? g.k : g.n;
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.n_batch < 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (g.lda < a_rows || g.ldb < b_rows || g.ldc < g.m) return CUBLAS_STATUS_INVALID_VALUE;
  if (compute != CUBLAS_COMPUTE_32F || !is_supported(g.a_type) || g.a_type != g.b_type ||
      !is_supported(g.c_type))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (g.m == 0 || g.n == 0 || g.n_batch == 0) return CUBLAS_STATUS_SUCCESS;
  return status_of(api([&](Machine& m) {
    if (!is_on_device(m, g.a, g.a_type, a_rows, a_cols, g.lda, g.stride_a, g.n_batch) ||
        !is_on_device(m, g.b, g.b_type, b_rows, b_cols, g.ldb, g.stride_b, g.n_batch) ||
        !is_on_device(m, g.c, g.c_type, g.m, g.n, g.ldc, g.stride_c, g.n_batch))
      return cudaErrorInvalidValue;
    return m.enqueue(reinterpret_cast<Handle*>(handle)->stream,
                     {cudaGraphNodeTypeKernel, [g] { run(g); }});
  }));
}

}  // namespace

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = reinterpret_cast<cublasHandle_t>(new Handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  reinterpret_cast<Handle*>(handle)->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* /*workspace*/, size_t /*bytes*/) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t /*mode*/) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "an error of the emulated cuBLAS";
}

// Scalars are read at the call, from the host: the pointer mode that the backend uses.
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t a_op,
                                          cublasOperation_t b_op, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType b_type, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int n_batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t /*algo*/) {
  if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  return enqueue(handle,
                 {a_op != CUBLAS_OP_N,
                  b_op != CUBLAS_OP_N,
                  m,
                  n,
                  k,
                  *static_cast<const float*>(alpha),
                  *static_cast<const float*>(beta),
                  a,
                  b,
                  c,
                  a_type,
                  b_type,
                  c_type,
                  lda,
                  ldb,
                  ldc,
                  stride_a,
                  stride_b,
                  stride_c,
                  n_batch},
                 compute);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op,
                            int m, int n, int k, const void* alpha, const void* a,
                            cudaDataType a_type, int lda, const void* b, cudaDataType b_type,
                            int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx(handle, a_op, b_op, m, n, k, alpha, a, a_type, lda, 0, b,
                                    b_type, ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algo);
}
