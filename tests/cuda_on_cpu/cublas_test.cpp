#include <cublas_v2.h>
#include <cuda_fp16.h>

#include "tests/cuda_on_cpu/fixture.h"

namespace infer::cuda::test {

using Cublas = Emulated;

// C[m,n] = A[m,k] * B[n,k]^T, all row-major, the way the backend multiplies: column-major C^T = B *
// A^T.
TEST_F(Cublas, RowMajorProductAgainstPlainLoops) {
  const int m = 5, n = 7, k = 9;
  std::vector<__half> a(m * k), b(n * k);
  for (size_t i = 0; i < a.size(); ++i) a[i] = __half(static_cast<float>(i % 11) - 5);
  for (size_t i = 0; i < b.size(); ++i) b[i] = __half(static_cast<float>(i % 7) - 3);
  cublasHandle_t handle = nullptr;
  ASSERT_EQ(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  ASSERT_EQ(cublasSetStream(handle, stream), CUBLAS_STATUS_SUCCESS);
  DeviceArray<__half> da(a), db(b);
  DeviceArray<float> dc(m * n);
  const float one = 1, zero = 0;
  ASSERT_EQ(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &one, db.data(), CUDA_R_16F, k,
                         da.data(), CUDA_R_16F, k, &zero, dc.data(), CUDA_R_32F, n,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  const auto c = dc.host();
  for (int row = 0; row < m; ++row)
    for (int col = 0; col < n; ++col) {
      float expected = 0;
      for (int i = 0; i < k; ++i)
        expected += __half2float(a[static_cast<size_t>(row * k + i)]) *
                    __half2float(b[static_cast<size_t>(col * k + i)]);
      EXPECT_EQ(c[static_cast<size_t>(row * n + col)], expected);
    }
  EXPECT_EQ(cublasDestroy(handle), CUBLAS_STATUS_SUCCESS);
}

TEST_F(Cublas, BatchesScaleAndAdd) {
  cublasHandle_t handle = nullptr;
  cublasCreate(&handle);
  // Two batches of 1 x 1 products of length 2, c = 2 a.b + 3 c.
  DeviceArray<float> a(std::vector<float>{1, 2, 3, 4}), b(std::vector<float>{5, 6, 7, 8});
  DeviceArray<float> c(std::vector<float>{1, 10});
  const float alpha = 2, beta = 3;
  ASSERT_EQ(
      cublasGemmStridedBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 2, &alpha, a.data(),
                                 CUDA_R_32F, 1, 2, b.data(), CUDA_R_32F, 2, 2, &beta, c.data(),
                                 CUDA_R_32F, 1, 1, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      CUBLAS_STATUS_SUCCESS);
  EXPECT_THAT(c.host(), testing::ElementsAre(2 * 17 + 3, 2 * 53 + 30));
  EXPECT_EQ(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 2, &alpha, a.data(), CUDA_R_32F, 1,
                         b.data(), CUDA_R_32F, 2, &beta, c.data(), CUDA_R_32F, 2,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_INVALID_VALUE)
      << "leading dimension below the rows";
  EXPECT_NE(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 1, 2, &alpha, a.data(), CUDA_R_32F, 4,
                         b.data(), CUDA_R_32F, 2, &beta, c.data(), CUDA_R_32F, 4,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS)
      << "beyond the allocation";
  cublasDestroy(handle);
}

}  // namespace infer::cuda::test
