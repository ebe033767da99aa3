#include "kernels/cuda/gemv.cuh"

namespace infer::cuda::gemv {
namespace {

/// Quantised weights times f32 activations.
template <DType kType>
cudaError_t launch_m(const Launch& what, const Params& p, cudaStream_t stream) {
  if (what.m <= 1) return launch_rows<kType, 1, true>(what, p, stream);
  return launch_rows<kType, 4, true>(what, p, stream);  // more rows in passes
}

}  // namespace

cudaError_t launch_precise(const Launch& what, const Params& p, cudaStream_t stream) {
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
    case DType::kQ2_K:
      return launch_m<DType::kQ2_K>(what, p, stream);
    case DType::kQ3_K:
      return launch_m<DType::kQ3_K>(what, p, stream);
    case DType::kQ4_K:
      return launch_m<DType::kQ4_K>(what, p, stream);
    case DType::kQ5_K:
      return launch_m<DType::kQ5_K>(what, p, stream);
    case DType::kQ6_K:
      return launch_m<DType::kQ6_K>(what, p, stream);
    case DType::kIQ4_XS:
      return launch_m<DType::kIQ4_XS>(what, p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace infer::cuda::gemv
