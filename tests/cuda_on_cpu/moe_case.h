#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/moe.h"
#include "tests/cuda_on_cpu/linear_case.h"

/// Experts on the device with their f64 references.
namespace infer::cuda::test {

/// What outputs hold before a launch.
inline constexpr float kUntouched = -12345.0f;

struct Routes {
  std::vector<float> route;
  std::vector<int32_t> begin, pair;
};

Routes run_route(const std::vector<float>& logits, int m, int live, int n_expert, int n_used,
                 bool normalise);

/// By which products rows meet their experts.
enum class MoeKernel { kGemv, kQ8, kHalf };

struct MoeCase {
  DType type = DType::kF32;
  int n_expert = 4, n_used = 2, m = 1, live = 1, n = 0, k = 0;
  bool precise = false;
  GluKind glu = GluKind::kSilu;
  MoeKernel kernel = MoeKernel::kGemv;
  /// Rows of each expert, with n_used == 1, in random order; empty: random routes, but none to
  /// expert 0.
  std::vector<int> rows = {};
};

/// Activations are allocated for the live rows only, so that reading another one hits the guard
/// behind them.
class MoeRun {
 public:
  explicit MoeRun(const MoeCase& c);
  std::vector<float> glu();
  std::vector<float> run_glu() const;
  Bounded glu_reference() const;
  std::vector<float> down();
  std::vector<float> run_down() const;
  Bounded down_reference() const;
  std::string name() const;

 private:
  struct Act;
  void finish(cudaError_t error) const;
  std::vector<float> chosen_logits();
  /// x [m, k] prepared, with as many live rows as *n_live says.
  Act prepare(int m, int live, const int32_t* n_live) const;
  Bounded seen(const std::vector<float>& x, int m, int k) const;
  Bounded product_of(const HostMatrix& w, const Bounded& row) const;
  Bounded row_of(const Bounded& x, int row) const;
  int expert_of(int pair) const;

  MoeCase c_;
  std::mt19937_64 rng_;
  bool bf16_ = false;  // activations and weights of kHalf
  std::vector<HostMatrix> gate_, up_;
  std::unique_ptr<DeviceMatrix> device_gate_, device_up_;
  std::vector<float> logits_, x_, residual_;
  Routes r_;
  std::unique_ptr<DeviceArray<float>> route_, device_x_, device_residual_;
  std::unique_ptr<DeviceArray<int32_t>> begin_, pair_, n_live_;
};

/// Launches glu and down, and compares both with f64.
void check(const MoeCase& c);

}  // namespace infer::cuda::test
