#include "kernels/cuda/gemm_half.cuh"

namespace infer::cuda::gemm {

cudaError_t launch_half_legacy(DType type, HalfTile tile, const Params& p, cudaStream_t stream) {
  switch (type) {
    case DType::kQ4_0:
      return launch_half<DType::kQ4_0>(tile, p, stream);
    case DType::kQ4_1:
      return launch_half<DType::kQ4_1>(tile, p, stream);
    case DType::kQ5_0:
      return launch_half<DType::kQ5_0>(tile, p, stream);
    case DType::kQ5_1:
      return launch_half<DType::kQ5_1>(tile, p, stream);
    case DType::kQ8_0:
      return launch_half<DType::kQ8_0>(tile, p, stream);
    case DType::kIQ4_NL:
      return launch_half<DType::kIQ4_NL>(tile, p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemm
