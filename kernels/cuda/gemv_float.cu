#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {

cudaError_t launch_float(const Launch& what, const Params& p, cudaStream_t stream) {
  return launch_type<true>(FloatTypes{}, RowCounts<1, 2, 4>{}, what, p, stream);
}

}  // namespace infer::cuda::gemv
