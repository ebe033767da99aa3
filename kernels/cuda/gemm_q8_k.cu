#include "kernels/cuda/gemm_q8.cuh"

namespace infer::cuda::gemm {

cudaError_t launch_q8_k(DType type, const Params& p, cudaStream_t stream) {
  switch (type) {
    case DType::kQ2_K:
      return launch_q8<DType::kQ2_K>(p, stream);
    case DType::kQ3_K:
      return launch_q8<DType::kQ3_K>(p, stream);
    case DType::kQ4_K:
      return launch_q8<DType::kQ4_K>(p, stream);
    case DType::kQ5_K:
      return launch_q8<DType::kQ5_K>(p, stream);
    case DType::kQ6_K:
      return launch_q8<DType::kQ6_K>(p, stream);
    case DType::kIQ4_XS:
      return launch_q8<DType::kIQ4_XS>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemm
