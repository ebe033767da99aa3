#pragma once

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/emulator.h"

namespace infer::cuda::test {

using emulated::reset;
using emulated::take_reports;

/// A fresh machine for each test.
class Emulated : public testing::Test {
 protected:
  void SetUp() override { reset({}); }
};

/// An array of the device: made from the host's, read back by host().
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(n_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t n_ = 0;
};

/// Launches, waits, and expects the checkers to have said something that contains each of `parts`.
template <class Kernel, class... Args>
void expect_report(std::vector<std::string> parts, Kernel* kernel, Grid grid, dim3 block,
                   size_t shared_bytes, Args... args) {
  EXPECT_EQ(launch(kernel, grid, block, shared_bytes, nullptr, args...), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  const auto reports = take_reports();
  ASSERT_EQ(reports.size(), 1u);
  for (const auto& part : parts) EXPECT_THAT(reports[0], testing::HasSubstr(part));
}

}  // namespace infer::cuda::test
