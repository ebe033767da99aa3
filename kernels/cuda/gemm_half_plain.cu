#include "kernels/cuda/gemm_half.cuh"

namespace infer::cuda::gemm {

cudaError_t launch_half_plain(DType type, HalfTile tile, const Params& p, cudaStream_t stream) {
  if (type == DType::kF16) return launch_half<DType::kF16>(tile, p, stream);
  if (type == DType::kBF16) return launch_half<DType::kBF16>(tile, p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace infer::cuda::gemm
