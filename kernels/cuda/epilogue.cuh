#pragma once

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"

/// What is done with a product before it is stored (LinearEpilogue).
namespace infer::cuda {

/// x * sigmoid(y).
INFER_DEVICE float times_sigmoid(float x, float y) { return x / (1.0f + expf(-y)); }

/// Sources: GELU, arXiv:1606.08415; SiLU, arXiv:1702.03118.
INFER_DEVICE float activate(GluKind kind, float x) {
  if (kind == GluKind::kSilu) return times_sigmoid(x, x);
  // (1 + tanh(u)) / 2 = sigmoid(2u): the tail for negative x keeps its digits.
  if (kind == GluKind::kGeluTanh)
    return times_sigmoid(x, 1.5957691216f * x * fmaf(0.044715f * x, x, 1.0f));
  return 0.5f * x * erfcf(-0.70710678f * x);
}

/// Bias, scale, softcap.
INFER_DEVICE float scaled(const LinearEpilogue& e, float sum, float bias) {
  const float v = e.scale * (sum + bias);
  return e.softcap != 0.0f ? e.softcap * tanhf(v / e.softcap) : v;
}

/// The output from scaled() of its product; kGlu: and of that with `up`; `at` is its index in
/// [m, n].
INFER_DEVICE float finish(const LinearEpilogue& e, float v, float up, int64_t at) {
  switch (e.kind) {
    case Epilogue::kResidualAdd:
      return e.residual[at] + v;
    case Epilogue::kGlu:
      return activate(e.glu, v) * up;
    case Epilogue::kAct:
      return activate(e.glu, v);
    case Epilogue::kActMul:
      return activate(e.glu, v) * e.residual[at];
    default:
      return v;
  }
}

}  // namespace infer::cuda
