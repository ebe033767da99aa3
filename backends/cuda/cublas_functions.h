#pragma once

#include <cuda_runtime.h>

#include <cstddef>

/// The functions of cuBLAS that the backend calls, with the library's ABI (versions 12 and 13) but
/// without its header, which a toolkit need not have. The emulator's table
/// (tests/cuda_on_cpu/cublas_linked.cpp) checks these against the header.
namespace infer::cuda {

inline constexpr int kCublasOpN = 0;
inline constexpr int kCublasOpT = 1;
inline constexpr int kCublasCompute32F = 68;
inline constexpr int kCublasGemmDefault = -1;

struct CublasFunctions {
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*set_stream)(void* handle, cudaStream_t stream) = nullptr;
  int (*set_workspace)(void* handle, void* workspace, size_t bytes) = nullptr;
  int (*gemm_ex)(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int lda, const void* b, int b_type, int ldb,
                 const void* beta, void* c, int c_type, int ldc, int compute, int algo) = nullptr;
};

/// Opened once a process; nullptr where there is none.
const CublasFunctions* cublas_functions();

}  // namespace infer::cuda
