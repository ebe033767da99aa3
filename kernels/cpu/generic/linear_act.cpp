#include "kernels/cpu/generic/linear_act.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace infer::kern::generic {
namespace {

/// Nearest integer, ties to even, for |v| < 2^22.
float round_even(float v) { return (v + 0x1.8p23f) - 0x1.8p23f; }

void quantise_block(const float* x, ActBlock& b) {
  uint32_t max_bits = 0;  // magnitudes order like their bits; NaN and inf come out on top
  for (int i = 0; i < 32; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  const float max = std::bit_cast<float>(max_bits);
  std::memset(&b, 0, sizeof(b));
  if (max_bits >= 0x7f800000u) {
    b.d = b.s = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  if (max < kActTiny) return;
  const float inv = 127.0f / max;
  int sum[2] = {0, 0};
  for (int i = 0; i < 32; ++i) {
    const int q = static_cast<int>(round_even(x[i] * inv));
    b.q[i] = static_cast<int8_t>(q);
    sum[i / 16] += q;
  }
  b.d = max / 127.0f;
  b.s = b.d * static_cast<float>(sum[0] + sum[1]);
  b.h[0] = static_cast<int16_t>(sum[0]);
  b.h[1] = static_cast<int16_t>(sum[1]);
}

}  // namespace

int64_t act_bytes_f32(int64_t k) { return act_f32_len(k) * static_cast<int64_t>(sizeof(float)); }
int64_t act_bytes_q8(int64_t k) { return k / 32 * static_cast<int64_t>(sizeof(ActBlock)); }

void prepare_f32(const float* x, int64_t k, std::byte* act) {
  const size_t used = static_cast<size_t>(k) * sizeof(float);
  std::memcpy(act, x, used);
  std::memset(act + used, 0, static_cast<size_t>(act_bytes_f32(k)) - used);
}

void prepare_q8(const float* x, int64_t k, std::byte* act) {
  for (int64_t ib = 0; ib < k / 32; ++ib) {
    ActBlock b;
    quantise_block(x + ib * 32, b);
    std::memcpy(act + ib * static_cast<int64_t>(sizeof(ActBlock)), &b, sizeof(b));
  }
}

}  // namespace infer::kern::generic
