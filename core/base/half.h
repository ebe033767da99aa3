#pragma once

#include <bit>
#include <cstdint>

/// Scalar conversions between f32 and the two 16-bit float formats, bit exact with the hardware's
/// (round to nearest even). Force-inlined: ISA-specific files include this header and must not emit
/// a shared copy (style.md 2.6).
namespace infer {

[[gnu::always_inline]] inline float f32_from_bf16(uint16_t h) {
  return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

[[gnu::always_inline]] inline uint16_t bf16_from_f32(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>((u >> 16) | 0x40u);  // keep NaN a quiet NaN
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

[[gnu::always_inline]] inline float f32_from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t mag = h & 0x7fffu;
  if (mag >= 0x7c00u) {  // inf, NaN (quietened, as the hardware does)
    const uint32_t quiet = mag > 0x7c00u ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | ((mag & 0x3ffu) << 13));
  }
  if (mag >= 0x0400u) return std::bit_cast<float>(sign | ((mag + 0x1c000u) << 13));
  const float sub = static_cast<float>(mag) * 0x1p-24f;  // subnormal half: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(sub));
}

[[gnu::always_inline]] inline uint16_t f16_from_f32(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t mag = u & 0x7fffffffu;
  if (mag > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((mag >> 13) & 0x3ffu));
  if (mag >= 0x477ff000u)
    return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to or beyond 65520
  if (mag < 0x38800000u) {                         // subnormal half or zero
    const float scaled =
        std::bit_cast<float>(mag) + 0.5f;  // ulp of [0.5, 1) is 2^-24: the adder rounds for us
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(scaled) - 0x3f000000u));
  }
  const uint32_t odd = (mag >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((mag - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace infer
