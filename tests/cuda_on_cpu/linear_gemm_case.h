#pragma once

#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/linear.h"
#include "tests/cuda_on_cpu/fixture.h"
#include "tests/ops/linear_support.h"

/// Matrix products on the device with their f64 references.
namespace infer::cuda::test {

struct GemmShape {
  int m, live, k;
  std::vector<int> n;  ///< of each item
};

enum class GemmKernel { kQ8, kHalfChosen, kHalfLarge, kHalfSmall, kEpilogueOnly };

struct GemmCase {
  GemmKernel kernel = GemmKernel::kQ8;
  std::vector<DType> types;  ///< of each item
  GemmShape shape;
  LinearEpilogue epilogue = {};  ///< the residual is made where the kind wants one
  bool bias = false;
  infer::test::Levels levels = infer::test::Levels::kRandom;
  infer::test::Scales scales = infer::test::Scales::kNormal;
  infer::test::Inputs inputs = infer::test::Inputs::kNormal;
  uint64_t seed = 1;
};

/// A matrix of `type` as linear_gemm_half sees it: a file of f16 or bf16.
std::vector<std::byte> rounded_weights(DType type, bool bf16, std::span<const std::byte> file,
                                       int64_t n, int64_t k);

/// A case on the device. Activations are allocated for the live rows only, so that reading another
/// one hits the guard behind them.
class GemmProblem {
 public:
  explicit GemmProblem(const GemmCase& c);
  /// Launches with outputs that hold a sentinel, waits, and returns the outputs of all items [m,
  /// n]. Fails the test if a row from `live` on was written.
  std::vector<std::vector<float>> run() const;
  /// Fails the test where `out` is further from f64 than the roundings of the kernel allow.
  void expect_right(const std::vector<std::vector<float>>& out) const;

 private:
  struct Item;
  GemmCase case_;
  std::vector<float> x_;         // [live, k]
  std::vector<double> seen_;     // x as the kernel gets it
  std::vector<float> residual_;  // [live, n]
  std::vector<std::shared_ptr<Item>> items_;
  std::shared_ptr<DeviceArray<int8_t>> q_;
  std::shared_ptr<DeviceArray<float2>> ds_;
  std::shared_ptr<DeviceArray<uint16_t>> half_;
  std::shared_ptr<DeviceArray<float>> device_residual_;
  std::shared_ptr<DeviceArray<int32_t>> n_live_;

  void make_activations();
  infer::test::Reference sums(size_t item) const;
};

}  // namespace infer::cuda::test
