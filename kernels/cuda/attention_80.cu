#include "kernels/cuda/attention_launch.cuh"

namespace infer::cuda::attention {

template cudaError_t launch_decode<80>(const AttentionDecodeArgs&, cudaStream_t);
template cudaError_t launch_prefill<80>(const AttentionPrefillArgs&, cudaStream_t);

}  // namespace infer::cuda::attention
