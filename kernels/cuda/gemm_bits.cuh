#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/act_q8.cuh"

/// Bits of bytes, halves and floats, for the matrix products.
namespace infer::cuda::gemm {

/// Bytes of {low, high} (0..3 of low, 4..7 of high) picked by the four low nibbles of `selector`,
/// each 0..7.
INFER_DEVICE uint32_t byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
#if defined(__CUDACC__)
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return out;
#endif
}

/// Byte `i` of `word` as it is, 0..255, in f32: put below the bits of 2^23, which a subtraction
/// takes off. Conversions of integers have a quarter of the throughput or less.
INFER_DEVICE float float_from_byte(uint32_t word, int i, float bias) {
  return float_of_bits(byte_perm(word, 0x4b000000u, 0x7540u | static_cast<uint32_t>(i))) -
         (8388608.0f + bias);
}

INFER_DEVICE float f32_from_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
INFER_DEVICE float f32_from_bf16(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

/// Within f16's range; NaN stays.
INFER_DEVICE float saturate_f16(float v) {
  return v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;
}
INFER_DEVICE uint16_t f16_bits(float v) { return __half_as_ushort(__float2half_rn(v)); }
INFER_DEVICE uint16_t bf16_bits(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }

/// Two halves in a register, `low` first in memory.
INFER_DEVICE uint32_t f16_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

}  // namespace infer::cuda::gemm
