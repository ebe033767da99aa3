#include <cstdio>
#include <cstring>

#include "tests/cuda_on_cpu/machine.h"
#include "tests/cuda_on_cpu/shared_memory.h"

/// Devices, kernels' attributes and errors of the runtime API.
namespace infer::cuda::emulated {

namespace {

constexpr int kMultiprocessors = 4;

int threads_per_multiprocessor(int architecture) {
  switch (architecture) {
    case 75:
      return 1024;
    case 80:
    case 90:
    case 100:
      return 2048;
    default:
      return 1536;
  }
}

// Shared memory of a multiprocessor: 1 KiB of each block is the system's from sm_80 on.
int shared_per_multiprocessor(int architecture) {
  const auto most = static_cast<int>(max_shared_bytes(architecture));
  return architecture >= 80 ? most + 1024 : most;
}

cudaError_t attribute(const Options& o, cudaDeviceAttr which, int* value) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = o.architecture / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = o.architecture % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      break;
    case cudaDevAttrWarpSize:
      *value = kWarpLanes;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = kMaxLanes;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = threads_per_multiprocessor(o.architecture);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = kDefaultSharedBytes;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(max_shared_bytes(o.architecture));
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = shared_per_multiprocessor(o.architecture);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
      *value = 1;
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
};

const ErrorText& find_error(cudaError_t error) {
  static constexpr ErrorText kUnknown = {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
  for (const ErrorText& e : kErrors)
    if (e.error == error) return e;
  return kUnknown;
}

}  // namespace

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cudaError_t cudaGetDeviceCount(int* count) {
  return api([&](Machine& m) {
    *count = m.options.n_device;
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return api([&](Machine& m) {
    if (device < 0 || device >= m.options.n_device) return cudaErrorInvalidDevice;
    if (device == m.options.busy_device) return cudaErrorDevicesUnavailable;
    current_device = device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().has_driver ? CUDART_VERSION : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  return api([&](Machine& m) {
    if (value == nullptr) return cudaErrorInvalidValue;
    if (device < 0 || device >= m.options.n_device) return cudaErrorInvalidDevice;
    return attribute(m.options, which, value);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  return api([&](Machine& m) {
    if (out == nullptr) return cudaErrorInvalidValue;
    if (device < 0 || device >= m.options.n_device) return cudaErrorInvalidDevice;
    const int architecture = m.options.architecture;
    *out = {};
    std::snprintf(out->name, sizeof(out->name), "CPU emulating sm_%d", architecture);
    out->major = architecture / 10;
    out->minor = architecture % 10;
    out->totalGlobalMem = m.options.device_bytes;
    out->multiProcessorCount = kMultiprocessors;
    out->warpSize = kWarpLanes;
    out->maxThreadsPerBlock = kMaxLanes;
    out->maxThreadsPerMultiProcessor = threads_per_multiprocessor(architecture);
    out->regsPerBlock = out->regsPerMultiprocessor = 65536;
    out->sharedMemPerBlock = kDefaultSharedBytes;
    out->sharedMemPerBlockOptin = max_shared_bytes(architecture);
    out->sharedMemPerMultiprocessor = static_cast<size_t>(shared_per_multiprocessor(architecture));
    out->reservedSharedMemPerBlock = architecture >= 80 ? 1024 : 0;
    out->concurrentKernels = out->asyncEngineCount = out->unifiedAddressing = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute which, int value) {
  return api([&](Machine& m) {
    if (which == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<size_t>(value) > max_shared_bytes(m.options.architecture))
      return cudaErrorInvalidValue;
    m.kernel_shared_bytes[kernel] = value;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* kernel) {
  return api([&](Machine& m) {
    if (out == nullptr || kernel == nullptr) return cudaErrorInvalidValue;
    if (!m.has_code()) return cudaErrorNoKernelImageForDevice;
    *out = {};
    out->maxThreadsPerBlock = kMaxLanes;
    out->binaryVersion = m.options.architecture;  // compiled for it when it is loaded
    out->ptxVersion = architecture();
    const auto asked = m.kernel_shared_bytes.find(kernel);
    out->maxDynamicSharedSizeBytes = asked == m.kernel_shared_bytes.end()
                                         ? static_cast<int>(kDefaultSharedBytes)
                                         : asked->second;
    return cudaSuccess;
  });
}

// By threads and shared memory alone: the emulator knows no registers.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n_block, const void* /*kernel*/,
                                                          int n_thread, size_t shared_bytes) {
  return api([&](Machine& m) {
    if (n_block == nullptr || n_thread < 1) return cudaErrorInvalidValue;
    const int architecture = m.options.architecture;
    *n_block = threads_per_multiprocessor(architecture) / n_thread;
    const size_t reserved = architecture >= 80 ? 1024 : 0;
    if (shared_bytes + reserved > 0)
      *n_block = std::min(
          *n_block, static_cast<int>(static_cast<size_t>(shared_per_multiprocessor(architecture)) /
                                     (shared_bytes + reserved)));
    return cudaSuccess;
  });
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  const std::lock_guard lock(machine_mutex());
  last_error = machine().sticky;
  return error;
}

cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorName(cudaError_t error) { return find_error(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return find_error(error).text; }
