#include "kernels/cpu/generic/nonlinear.h"

namespace infer::kern::generic {

void rope(RopeKind kind, float* x, int64_t n_head, int64_t head_dim, int64_t rope_dim,
          const float* cos_sin) {
  const int64_t half = rope_dim / 2;
  // Element i of a pair and its partner: (2i, 2i + 1) or (i, i + half).
  const int64_t step = kind == RopeKind::kNorm ? 2 : 1;
  const int64_t partner = kind == RopeKind::kNorm ? 1 : half;
  for (int64_t h = 0; h < n_head; ++h) {
    float* head = x + h * head_dim;
    for (int64_t i = 0; i < half; ++i) {
      const float c = cos_sin[2 * i];
      const float s = cos_sin[2 * i + 1];
      float& a = head[i * step];
      float& b = head[i * step + partner];
      const float a0 = a;
      const float b0 = b;
      a = a0 * c - b0 * s;
      b = b0 * c + a0 * s;
    }
  }
}

}  // namespace infer::kern::generic
