#include "kernels/cuda/attention_launch.cuh"

namespace infer::cuda::attention {

template cudaError_t launch_decode<256>(const AttentionDecodeArgs&, cudaStream_t);
template cudaError_t launch_prefill<256>(const AttentionPrefillArgs&, cudaStream_t);

}  // namespace infer::cuda::attention
