#include "kernels/cuda/gemm_half.cuh"

namespace infer::cuda::gemm {

cudaError_t launch_half_k(DType type, HalfTile tile, const Params& p, cudaStream_t stream) {
  switch (type) {
    case DType::kQ2_K:
      return launch_half<DType::kQ2_K>(tile, p, stream);
    case DType::kQ3_K:
      return launch_half<DType::kQ3_K>(tile, p, stream);
    case DType::kQ4_K:
      return launch_half<DType::kQ4_K>(tile, p, stream);
    case DType::kQ5_K:
      return launch_half<DType::kQ5_K>(tile, p, stream);
    case DType::kQ6_K:
      return launch_half<DType::kQ6_K>(tile, p, stream);
    case DType::kIQ4_XS:
      return launch_half<DType::kIQ4_XS>(tile, p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemm
