#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/linear.h"
#include "tests/cuda_on_cpu/fixture.h"
#include "tests/ops/linear_support.h"

/// f64 references, with bounds, for products of CUDA kernels.
namespace infer::cuda::test {

/// Unit roundoff of f32.
inline constexpr double kU = 0x1p-24;

/// Values, and how far a kernel may be from each.
struct Bounded {
  std::vector<double> value, bound;
};

/// A matrix as the file has it.
struct HostMatrix {
  DType type;
  int n, k;
  std::vector<std::byte> file;

  HostMatrix(std::mt19937_64& rng, DType type, int n, int k,
             infer::test::Levels levels = infer::test::Levels::kRandom,
             infer::test::Scales scales = infer::test::Scales::kNormal);
};

/// One or several of them (experts) on the device.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const std::vector<HostMatrix>& experts);
  const Matrix& get() const { return matrix_; }

 private:
  DeviceArray<std::byte> bytes_;
  Matrix matrix_;
};

struct HostNorm {
  NormKind kind = NormKind::kNone;
  std::vector<float> weight, bias;
  float eps = 1e-5f;

  HostNorm() = default;
  HostNorm(std::mt19937_64& rng, NormKind kind, int k);
};

/// x [m, k] normalised.
Bounded normalised(const HostNorm& norm, const std::vector<float>& x, int m, int k);

/// What a kernel that rounds to 8 bits per 32 sees of activations: d * q. The bound holds what a
/// neighbouring level adds where the rounding could have gone either way.
Bounded rounded_q8(const Bounded& x, int m, int k);

/// x W^T of activations with bounds, [m, n]. `steps` is the number of roundings that a sum passes
/// through at most, relative to the sum of magnitudes.
Bounded product(const HostMatrix& w, const Bounded& x, int m, double steps);

/// Steps of a gemv (kernels/cuda/gemv.cuh).
double gemv_steps(DType type, int k, bool f32);

/// scale * (v + bias), then softcap. bias may be empty.
Bounded scaled(const LinearEpilogue& e, const Bounded& v, const std::vector<float>& bias);
Bounded activated(GluKind kind, const Bounded& v);
Bounded multiplied(const Bounded& a, const Bounded& b);
Bounded added(const Bounded& a, const std::vector<float>& b);

/// Compares the first rows, and expects `untouched` in the others.
void expect_near(const std::vector<float>& out, const Bounded& expected, float untouched,
                 const std::string& what);

std::vector<float> random_floats(std::mt19937_64& rng, size_t n, float scale = 1.0f);

}  // namespace infer::cuda::test
