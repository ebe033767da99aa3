#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {
namespace {

template <DType kType>
cudaError_t launch_m(const Launch& what, const Params& p, cudaStream_t stream) {
  if (what.m <= 1) return launch_rows<kType, 1, false>(what, p, stream);
  if (what.m <= 2) return launch_rows<kType, 2, false>(what, p, stream);
  if (what.m <= 4) return launch_rows<kType, 4, false>(what, p, stream);
  return launch_rows<kType, 8, false>(what, p, stream);
}

}  // namespace

cudaError_t launch_legacy(const Launch& what, const Params& p, cudaStream_t stream) {
  switch (what.type) {
    case DType::kQ4_0:
      return launch_m<DType::kQ4_0>(what, p, stream);
    case DType::kQ4_1:
      return launch_m<DType::kQ4_1>(what, p, stream);
    case DType::kQ5_0:
      return launch_m<DType::kQ5_0>(what, p, stream);
    case DType::kQ5_1:
      return launch_m<DType::kQ5_1>(what, p, stream);
    case DType::kQ8_0:
      return launch_m<DType::kQ8_0>(what, p, stream);
    case DType::kIQ4_NL:
      return launch_m<DType::kIQ4_NL>(what, p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemv
