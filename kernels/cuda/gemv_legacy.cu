#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {

cudaError_t launch_legacy(const Launch& what, const Params& p, cudaStream_t stream) {
  return launch_type<false>(LegacyTypes{}, RowCounts<1, 2, 4, 8>{}, what, p, stream);
}

}  // namespace infer::cuda::gemv
