#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "tests/cuda_on_cpu/emulator.h"

/// The emulator's interface where the machine is a real one. Order is the hardware's: seeds choose
/// nothing. Allocations start as NaN and end in guard bytes here too.

extern "C" {
// The linker sends every call of cudaMalloc and cudaFree to the first two (--wrap).
cudaError_t __wrap_cudaMalloc(void** data, size_t bytes);
cudaError_t __wrap_cudaFree(void* data);
cudaError_t __real_cudaMalloc(void** data, size_t bytes);
cudaError_t __real_cudaFree(void* data);
}

namespace infer::cuda::emulated {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr int kGuard = 0xa5;
constexpr int kNaN = 0xff;  // as f16, bf16, f32 and f64

struct State {
  std::mutex mutex;
  std::map<void*, size_t> sizes;  // of what is allocated
  std::vector<std::string> reports;
  Options options;
};

State& state() {
  static State& s = *new State;  // outlives objects that free at the end of the program
  return s;
}

/// Writes behind an allocation become a report. Needs: the mutex, and a device that is idle.
void look_at_guard(State& s, void* data, size_t bytes) {
  std::vector<unsigned char> guard(kGuardBytes);
  if (cudaMemcpy(guard.data(), static_cast<char*>(data) + bytes, kGuardBytes,
                 cudaMemcpyDeviceToHost) != cudaSuccess)
    return;  // a sticky error, which take_reports() tells
  const auto bad =
      std::find_if(guard.begin(), guard.end(), [](unsigned char c) { return c != kGuard; });
  if (bad == guard.end()) return;
  s.reports.push_back(fmt::format("byte {} behind an allocation of {} bytes was written",
                                  bad - guard.begin(), bytes));
  static_cast<void>(cudaMemset(static_cast<char*>(data) + bytes, kGuard, kGuardBytes));
}

}  // namespace

void reset(const Options& options) {
  static_cast<void>(cudaDeviceSynchronize());
  static_cast<void>(take_reports());
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.options = options;
  cudaDeviceProp device{};
  if (cudaGetDeviceProperties(&device, 0) == cudaSuccess) {
    s.options.architecture = device.major * 10 + device.minor;
    s.options.device_bytes = device.totalGlobalMem;
  }
  static_cast<void>(cudaGetDeviceCount(&s.options.n_device));
  s.options.has_driver = true;
}

const Options& options() { return state().options; }

void set_seed(uint64_t) {}

void throw_at_launch(int) {}

bool on_gpu() { return true; }

std::vector<std::string> take_reports() {
  const cudaError_t waited = cudaDeviceSynchronize();
  const cudaError_t last = cudaGetLastError();
  State& s = state();
  const std::lock_guard lock(s.mutex);
  for (const auto& [data, bytes] : s.sizes) look_at_guard(s, data, bytes);
  const cudaError_t error = waited != cudaSuccess ? waited : last;
  if (error != cudaSuccess) s.reports.push_back(cudaGetErrorString(error));
  return std::exchange(s.reports, {});
}

size_t n_allocation() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.sizes.size();
}

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cudaError_t __wrap_cudaMalloc(void** data, size_t bytes) {
  if (const cudaError_t error = __real_cudaMalloc(data, bytes + kGuardBytes); error != cudaSuccess)
    return error;
  static_cast<void>(cudaMemset(*data, kNaN, bytes));
  static_cast<void>(cudaMemset(static_cast<char*>(*data) + bytes, kGuard, kGuardBytes));
  // Streams that do not wait for the legacy one must not meet the filling.
  static_cast<void>(cudaStreamSynchronize(cudaStreamLegacy));
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.sizes[*data] = bytes;
  return cudaSuccess;
}

cudaError_t __wrap_cudaFree(void* data) {
  if (data) {
    static_cast<void>(cudaDeviceSynchronize());
    State& s = state();
    const std::lock_guard lock(s.mutex);
    const auto found = s.sizes.find(data);
    if (found != s.sizes.end()) {
      look_at_guard(s, data, found->second);
      s.sizes.erase(found);
    }
  }
  return __real_cudaFree(data);
}
