#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/base/quant_blocks.h"
#include "kernels/cuda/device.cuh"

/// Bits of floats, halves and bytes, and how the block formats (core/base/quant_blocks.h) pack
/// their levels and scales. Words hold four bytes, the first one in the low byte.
namespace infer::cuda {

// --- Floats and halves --------------------------------------------------------------------------

INFER_DEVICE uint32_t float_bits(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits;
}
INFER_DEVICE float float_of_bits(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

/// Of the low 16 bits.
INFER_DEVICE float f32_from_f16(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}
INFER_DEVICE uint16_t f16_bits(float v) { return __half_as_ushort(__float2half_rn(v)); }
INFER_DEVICE uint16_t bf16_bits(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }

/// Finite values beyond f16's range become its largest, +-65504: a model with a few large
/// activations goes on, less precisely. Infinities and NaN stay, so that what went wrong before
/// stays visible.
INFER_DEVICE float saturate_f16(float v) {
  const float magnitude = fabsf(v);
  return magnitude > 65504.0f && magnitude < INFINITY ? copysignf(65504.0f, v) : v;
}

/// Two halves in a register, `low` first in memory.
INFER_DEVICE uint32_t f16_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// --- Bytes --------------------------------------------------------------------------------------

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

INFER_DEVICE uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
INFER_DEVICE int byte_of(uint32_t word, int i) { return static_cast<int>(word >> (8 * i) & 255); }
INFER_DEVICE int signed_byte(uint32_t word, int i) {
  return static_cast<int8_t>(word >> (8 * i) & 255);
}

/// kBits bits of each byte, from bit `shift` on.
template <int kBits>
INFER_DEVICE uint32_t bits_of_bytes(uint32_t word, int shift) {
  static_assert(kBits > 0 && kBits < 8);
  return word >> shift & 0x01010101u * ((1u << kBits) - 1);
}

/// Bit i of `bits` in byte i.
INFER_DEVICE uint32_t spread_4_bits(uint32_t bits) {
  return (bits & 15) * 0x00204081u & 0x01010101u;
}

/// Bytes u (0..127, or any where kBias is 128) minus kBias, as signed bytes: nothing is borrowed
/// from the next byte.
template <int kBias>
INFER_DEVICE uint32_t signed_levels(uint32_t u) {
  if (kBias == 0) return u;
  if (kBias == 128) return u ^ 0x80808080u;
  return ((u | 0x80808080u) - kBias * 0x01010101u) ^ 0x80808080u;
}

/// Byte `i` (0..255) minus `bias`, in f32: put below the bits of 2^23, which a subtraction takes
/// off. Conversions of integers have a quarter of the throughput or less.
INFER_DEVICE float float_from_byte(uint32_t word, int i, float bias) {
  return float_of_bits(byte_perm(word, 0x4b000000u, 0x7540u | static_cast<uint32_t>(i))) -
         (8388608.0f + bias);
}

// --- Levels -------------------------------------------------------------------------------------

/// Blocks of 32: levels of weights 16 * half + 4 * i and the next three, of 4 bits, and with a
/// fifth bit each. qs: word i of the 16 bytes of nibbles; qh: a bit a weight.
INFER_DEVICE uint32_t levels_of_4_bits(uint32_t qs, int half) {
  return bits_of_bytes<4>(qs, 4 * half);
}
INFER_DEVICE uint32_t levels_of_5_bits(uint32_t qs, uint32_t qh, int half, int i) {
  return levels_of_4_bits(qs, half) | spread_4_bits(qh >> (16 * half + 4 * i)) << 4;
}

/// kIq4Levels[first] and the next three plus `bias`, as bytes.
constexpr uint32_t iq4_word(int first, int bias) {
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i)
    word |= static_cast<uint32_t>((kIq4Levels[first + i] + bias) & 255) << (8 * i);
  return word;
}
template <int kBias>
struct Iq4Table {
  static constexpr uint32_t k0 = iq4_word(0, kBias), k4 = iq4_word(4, kBias);
  static constexpr uint32_t k8 = iq4_word(8, kBias), k12 = iq4_word(12, kBias);
};
/// kIq4Levels plus kBias of the four low nibbles, in their order.
template <int kBias>
INFER_DEVICE uint32_t iq4_levels(uint32_t nibbles) {
  using Table = Iq4Table<kBias>;
  const uint32_t below_8 = byte_perm(Table::k0, Table::k4, nibbles & 0x7777u);
  const uint32_t from_8 = byte_perm(Table::k8, Table::k12, nibbles & 0x7777u);
  return byte_perm(below_8, from_8, 0x3210u | (nibbles & 0x8888u) >> 1);
}
/// Of the low nibbles of four bytes of which iq4_levels() made `first` (of bytes 0 and 1) and
/// `second`, or of the high ones.
INFER_DEVICE uint32_t iq4_half(uint32_t first, uint32_t second, int half) {
  return byte_perm(first, second, half == 0 ? 0x6420u : 0x7531u);
}

// --- Scales -------------------------------------------------------------------------------------

/// Q4_K, Q5_K: 6-bit scales and minima of sub-blocks 0..3 or (`upper`) 4..7, a byte each.
/// head: {d, dmin} and the 12 bytes.
INFER_DEVICE uint32_t scales_k(const uint4& head, bool upper) {
  return upper ? bits_of_bytes<4>(head.w, 0) | (head.y >> 2 & 0x30303030u)
               : bits_of_bytes<6>(head.y, 0);
}
INFER_DEVICE uint32_t minima_k(const uint4& head, bool upper) {
  return upper ? bits_of_bytes<4>(head.w, 4) | (head.z >> 2 & 0x30303030u)
               : bits_of_bytes<6>(head.z, 0);
}

/// Q3_K: scales plus 32 of groups 4 * quarter and the next three, a byte each. low: word
/// quarter % 2 of the 12 bytes; high: word 2.
INFER_DEVICE uint32_t scales_q3_k(uint32_t low, uint32_t high, int quarter) {
  return bits_of_bytes<4>(low, quarter / 2 * 4) | bits_of_bytes<2>(high, 2 * quarter) << 4;
}

/// IQ4_XS: scale of sub-block `sub`, -32..31. head: d, scales_h; scales_l.
INFER_DEVICE int scale_iq4_xs(const uint2& head, int sub) {
  const uint32_t low = head.y >> (4 * sub) & 15, high = head.x >> (16 + 2 * sub) & 3;
  return static_cast<int>(low | high << 4) - 32;
}

}  // namespace infer::cuda
