#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/runtime/backend.h"

namespace infer::cuda {

/// What steps did, for tests and reports. Written by the threads that submit steps.
struct CudaCounters {
  std::map<int, int> kernels;  ///< launches of a captured step, by the rows it is for
  int64_t n_replayed = 0;      ///< steps that were one launch of a graph
  int64_t n_eager = 0;         ///< steps, and repetitions to find a NaN, launched op by op
  int64_t n_residual_in = 0;   ///< copies of a residual stream to a stage
  int64_t n_residual_out = 0;  ///< and from one
  int64_t n_whole_rows = 0;    ///< rows of logits that the host got whole
};

struct CudaBackendOptions {
  std::vector<int> devices;          ///< empty: all
  bool graphs = true;                ///< capture steps of decoding
  CudaCounters* counters = nullptr;  ///< outlives the backends
  /// Gets a line for each device that cannot be used, "cuda:1 (...): ..."; may be nullptr.
  std::vector<std::string>* left_out = nullptr;
};

/// One backend a device, in the order of `devices`. Where there is none the list is empty and
/// `why_none` says why in a few words: "built without CUDA"; "no ..." (no driver, no device) where
/// that is how the machine is; anything else where a driver or each device failed. Each device is
/// opened, which takes some of its memory; of all devices, those that cannot be used are left out.
/// Errors: kInvalidArgument for a device that there is not; kUnsupported for one of `devices` that
/// cannot be used.
Result<std::vector<std::unique_ptr<runtime::Backend>>> make_cuda_backends(
    const CudaBackendOptions& options, std::string* why_none);

}  // namespace infer::cuda
