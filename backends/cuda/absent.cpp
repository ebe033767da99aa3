#include "backends/cuda/cuda_backend.h"

/// Linked instead of the backend where CUDA's toolkit was not found.
namespace infer::cuda {

Result<std::vector<std::unique_ptr<runtime::Backend>>> make_cuda_backends(const CudaBackendOptions&,
                                                                          std::string* why_none) {
  *why_none = "built without CUDA";
  return std::vector<std::unique_ptr<runtime::Backend>>();
}

}  // namespace infer::cuda
