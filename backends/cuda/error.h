#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "core/base/error.h"

namespace infer::cuda {

/// The result of a call of CUDA's runtime. Errors: kOutOfMemory for memory, kIo for the rest, with
/// the device that is current, `what` was asked, CUDA's words, and the place (std::source_location,
/// which clang 14 has not).
inline Result<void> check(cudaError_t error, std::string_view what,
                          std::string_view file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (error == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());  // it was seen, the next launch shall not report it
  int device = 0;
  static_cast<void>(cudaGetDevice(&device));
  file.remove_prefix(file.rfind('/') + 1);
  return make_error(error == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kIo,
                    "cuda:{}: {}: {} ({}, {}:{})", device, what, cudaGetErrorString(error),
                    cudaGetErrorName(error), file, line);
}

}  // namespace infer::cuda
