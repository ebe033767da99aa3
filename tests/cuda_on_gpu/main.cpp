#include <cuda_runtime.h>
#include <fmt/format.h>
#include <gmock/gmock.h>

/// Tests on a real GPU: which one, or that there is none (exit code 77).
int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  int n_device = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_device);
  if (error != cudaSuccess || n_device == 0) {
    fmt::print("skipped: no GPU here ({})\n", cudaGetErrorString(error));
    return 77;
  }
  for (int i = 0; i < n_device; ++i) {
    cudaDeviceProp device{};
    if (cudaGetDeviceProperties(&device, i) != cudaSuccess) continue;
    fmt::print("[   GPU {}  ] {}, sm_{}{}, {} MiB\n", i, device.name, device.major, device.minor,
               device.totalGlobalMem >> 20);
  }
  return RUN_ALL_TESTS();
}
