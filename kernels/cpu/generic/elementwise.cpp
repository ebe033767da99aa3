#include <cmath>

#include "kernels/cpu/generic/nonlinear.h"

namespace infer::kern::generic {
namespace {

/// x * sigmoid(x).
float silu(float x) { return x / (1.0f + std::exp(-x)); }

/// 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), written as x * sigmoid(2u): the tail for
/// negative x keeps its digits, where 1 + tanh(u) would cancel.
float gelu_tanh(float x) {
  constexpr double kTwoSqrt2OverPi = 1.5957691216057308;
  const double xd = x;
  const double u2 = kTwoSqrt2OverPi * xd * (1.0 + 0.044715 * xd * xd);
  return static_cast<float>(xd / (1.0 + std::exp(-u2)));
}

/// x * Phi(x), the Gaussian distribution function by erfc: no cancellation for negative x.
float gelu_erf(float x) {
  constexpr double kSqrtHalf = 0.70710678118654752;
  const double xd = x;
  return static_cast<float>(0.5 * xd * std::erfc(-xd * kSqrtHalf));
}

}  // namespace

void add(const float* a, const float* b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void mul(const float* a, const float* b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void scale(const float* a, float s, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] * s;
}

void softcap(const float* a, float cap, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = cap * std::tanh(a[i] / cap);
}

void glu(GluKind kind, const float* gate, const float* up, int64_t n, float* y) {
  switch (kind) {
    case GluKind::kSilu:
      for (int64_t i = 0; i < n; ++i) y[i] = silu(gate[i]) * (up != nullptr ? up[i] : 1.0f);
      break;
    case GluKind::kGeluTanh:
      for (int64_t i = 0; i < n; ++i) y[i] = gelu_tanh(gate[i]) * (up != nullptr ? up[i] : 1.0f);
      break;
    case GluKind::kGeluErf:
      for (int64_t i = 0; i < n; ++i) y[i] = gelu_erf(gate[i]) * (up != nullptr ? up[i] : 1.0f);
      break;
  }
}

}  // namespace infer::kern::generic
