#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {

/// Quantised weights times f32 activations.
cudaError_t launch_precise(const Launch& what, const Params& p, cudaStream_t stream) {
  return launch_type<true>(LegacyTypes{} + KTypes{}, RowCounts<1, 4>{}, what, p, stream);
}

}  // namespace infer::cuda::gemv
