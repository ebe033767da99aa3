#pragma once

#include <cstdint>

#include "kernels/cuda/quant_bits.cuh"

/// Activations rounded to 8 bits per 32 along k (ActQ8 in linear.h): one way of rounding for every
/// kernel that does it, the CPU's (kernels/cpu/generic/linear_act.h).
namespace infer::cuda {

inline constexpr int kActGroup = 32;          ///< activations that share a scale
inline constexpr float kActTiny = 0x1p-100f;  ///< keeps 127 / max finite

/// Nearest integer, ties to even, for |v| < 2^22.
INFER_DEVICE int nearest_int(float v) {
#if defined(__CUDACC__)
  return __float2int_rn(v);
#else
  return static_cast<int>((v + 0x1.8p23f) - 0x1.8p23f);
#endif
}

/// A lane's kCount values of a group, as levels.
template <int kCount>
struct RoundedGroup {
  uint32_t q[kCount / 4];  ///< -127..127, four a word, the first in the low byte
  float d;                 ///< max |x| / 127 of the group
  float s;                 ///< d * (sum of the group's levels), rounded once
};

/// Called by all lanes of a warp; 32 / kCount neighbours hold a group, kCount values each. A group
/// with a NaN or an infinity has d = s = NaN and levels of 0, so that it turns every output NaN;
/// one whose largest magnitude is below kActTiny is zero. The result does not depend on kCount.
template <int kCount>
INFER_DEVICE RoundedGroup<kCount> round_act_group(const float (&v)[kCount],
                                                  Site site = Site::current()) {
  constexpr int kLanes = kActGroup / kCount;
  static_assert(kCount % 4 == 0 && kLanes * kCount == kActGroup);
  // Magnitudes order like their bits; NaN and infinity come out on top.
  int max_bits = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int bits = static_cast<int>(float_bits(v[i]) & 0x7fffffffu);
    max_bits = bits > max_bits ? bits : max_bits;
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    const int other = shfl_xor(max_bits, distance, kWarp, kFullMask, site);
    max_bits = other > max_bits ? other : max_bits;
  }
  const bool finite = max_bits < 0x7f800000;
  const float max = float_of_bits(static_cast<uint32_t>(max_bits));
  const bool rounds = finite && max >= kActTiny;
  const float inverse = rounds ? 127.0f / max : 0.0f;
  RoundedGroup<kCount> r;
  r.d = rounds ? max / 127.0f : 0.0f;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int q = rounds ? nearest_int(v[i] * inverse) : 0;
    const uint32_t byte = (static_cast<uint32_t>(q) & 0xffu) << (8 * (i % 4));
    r.q[i / 4] = i % 4 == 0 ? byte : r.q[i / 4] | byte;
    sum += q;
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    sum += shfl_xor(sum, distance, kWarp, kFullMask, site);
  r.s = r.d * static_cast<float>(sum);
  if (!finite) r.d = r.s = float_of_bits(0x7fc00000u);
  return r;
}

struct RoundedQ8 {
  uint32_t q;  ///< this lane's four levels
  float d, s;
};

/// The same for eight lanes a group: lane % 8 holds the values from 4 * (lane % 8) on.
INFER_DEVICE RoundedQ8 round_act_q8(const float4& x, Site site = Site::current()) {
  const float v[4] = {x.x, x.y, x.z, x.w};
  const RoundedGroup<4> r = round_act_group(v, site);
  return {r.q[0], r.d, r.s};
}

}  // namespace infer::cuda
