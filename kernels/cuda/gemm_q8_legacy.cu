#include "kernels/cuda/gemm_q8.cuh"

namespace infer::cuda::gemm {

cudaError_t launch_q8_legacy(DType type, const Params& p, cudaStream_t stream) {
  switch (type) {
    case DType::kQ4_0:
      return launch_q8<DType::kQ4_0>(p, stream);
    case DType::kQ4_1:
      return launch_q8<DType::kQ4_1>(p, stream);
    case DType::kQ5_0:
      return launch_q8<DType::kQ5_0>(p, stream);
    case DType::kQ5_1:
      return launch_q8<DType::kQ5_1>(p, stream);
    case DType::kQ8_0:
      return launch_q8<DType::kQ8_0>(p, stream);
    case DType::kIQ4_NL:
      return launch_q8<DType::kIQ4_NL>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemm
