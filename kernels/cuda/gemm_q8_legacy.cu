#include "kernels/cuda/gemm_q8.cuh"
#include "kernels/cuda/weight_types.h"

namespace infer::cuda::gemm {

cudaError_t launch_q8_legacy(DType type, const Params& p, cudaStream_t stream) {
  return with_type(LegacyTypes{}, type, [&]<DType kType>() { return launch_q8<kType>(p, stream); });
}

}  // namespace infer::cuda::gemm
