#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {
namespace {

template <DType kType>
cudaError_t launch_m(const Launch& what, const Params& p, cudaStream_t stream) {
  if (what.m <= 1) return launch_rows<kType, 1, true>(what, p, stream);
  if (what.m <= 2) return launch_rows<kType, 2, true>(what, p, stream);
  return launch_rows<kType, 4, true>(what, p, stream);  // more rows in passes
}

}  // namespace

cudaError_t launch_float(const Launch& what, const Params& p, cudaStream_t stream) {
  switch (what.type) {
    case DType::kF32:
      return launch_m<DType::kF32>(what, p, stream);
    case DType::kF16:
      return launch_m<DType::kF16>(what, p, stream);
    case DType::kBF16:
      return launch_m<DType::kBF16>(what, p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemv
