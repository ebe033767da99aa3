#include "kernels/cuda/gemm_half.cuh"
#include "kernels/cuda/weight_types.h"

namespace infer::cuda::gemm {

cudaError_t launch_half_legacy(DType type, HalfTile tile, const Params& p, cudaStream_t stream) {
  return with_type(LegacyTypes{}, type,
                   [&]<DType kType>() { return launch_half<kType>(tile, p, stream); });
}

}  // namespace infer::cuda::gemm
