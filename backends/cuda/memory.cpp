#include "backends/cuda/memory.h"

#include <cuda_runtime.h>

#include "backends/cuda/error.h"

namespace infer::cuda {
namespace {

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); }

}  // namespace

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) static_cast<void>(cudaFree(data_));
}

Result<DeviceBuffer> DeviceBuffer::allocate(int64_t n_bytes, std::string_view what) {
  DeviceBuffer b;
  if (n_bytes <= 0) return b;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(n_bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    int device = 0;
    static_cast<void>(cudaMemGetInfo(&free_bytes, &all_bytes));
    static_cast<void>(cudaGetDevice(&device));
    return make_error(ErrorCode::kOutOfMemory,
                      "cuda:{}: no memory for {}: {:.1f} MiB are needed, {:.1f} of {:.1f} are free",
                      device, what, mib(n_bytes), mib(static_cast<int64_t>(free_bytes)),
                      mib(static_cast<int64_t>(all_bytes)));
  }
  INFER_TRY(check(error, "allocating device memory"));
  b.data_ = static_cast<std::byte*>(data);
  b.n_bytes_ = n_bytes;
  return b;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) static_cast<void>(cudaFreeHost(data_));
}

Result<PinnedBuffer> PinnedBuffer::allocate(int64_t n_bytes, std::string_view what) {
  PinnedBuffer b;
  if (n_bytes <= 0) return b;
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(n_bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return make_error(ErrorCode::kIo,
                      "cuda: the host refuses to pin {:.1f} MiB of its memory for {}", mib(n_bytes),
                      what);
  }
  INFER_TRY(check(error, "pinning memory of the host"));
  b.data_ = static_cast<std::byte*>(data);
  b.n_bytes_ = n_bytes;
  return b;
}

}  // namespace infer::cuda
