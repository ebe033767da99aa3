#pragma once

#include <memory>

#include "tests/cuda_on_cpu/linear_case.h"

namespace infer::cuda::test {

/// A launch of linear_gemv or linear_f32 with its reference.
struct LinearCase {
  struct Item {
    DType type = DType::kF32;
    int n = 0;
    bool bias = false;
  };
  std::vector<Item> items;
  int k = 0, m = 1, live = 1;
  NormKind norm = NormKind::kNone;  ///< linear_gemv only
  LinearEpilogue epilogue;          ///< kResidualAdd: the residual is made
  infer::test::Levels levels = infer::test::Levels::kRandom;
  infer::test::Scales scales = infer::test::Scales::kNormal;
  float x_scale = 1.0f;
};

/// The case's inputs, on the host and on the device. Rows of x that are not alive are not
/// allocated.
class LinearRun {
 public:
  explicit LinearRun(const LinearCase& c);
  ~LinearRun();

  enum class Kernel { kGemv, kF32 };
  /// Outputs [m, n] of each item (of a GLU: one).
  std::vector<std::vector<float>> run(Kernel kernel) const;
  std::vector<Bounded> reference(Kernel kernel) const;
  /// Both, compared.
  void check(Kernel kernel) const;
  std::string name() const;
  /// Row of x overwritten on the device.
  void set_x(int row, float value);
  /// More live rows than there are count as all, less than none as none.
  void check_wrong_live_rows(Kernel kernel) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infer::cuda::test
