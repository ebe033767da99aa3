#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/quant_bits.cuh"
#include "kernels/cuda/weight_layout.h"

/// One element of a weight matrix in device layout, for kernels that read a row now and then. The
/// lanes of a warp want neighbours, so their byte loads meet in the same sectors.
namespace infer::cuda {

INFER_DEVICE int iq4_level(int q) {
  return signed_byte(iq4_levels<0>(static_cast<uint32_t>(q)), 0);
}

INFER_DEVICE float load_half(const std::byte* p) {
  return f32_from_f16(load_readonly<uint16_t>(p));
}
INFER_DEVICE int load_byte(const std::byte* p) { return load_readonly<uint8_t>(p); }

/// Nibble j of 32 in 16 bytes: low nibbles first.
INFER_DEVICE int nibble(const std::byte* qs, int j) {
  return (load_byte(qs + j % 16) >> (j < 16 ? 0 : 4)) & 15;
}
INFER_DEVICE int bit_of(const std::byte* bits, int j) {
  return (load_byte(bits + j / 8) >> (j % 8)) & 1;
}

/// Types of 32 elements a block. All products are exact, so that a fused multiply-add gives the
/// bits of the CPU's decoder.
INFER_DEVICE float decode_block32(const Matrix& w, int64_t block, int j) {
  const std::byte* p0 = w.plane[0] + block * (w.type == DType::kQ8_0 ? 32 : 16);
  switch (w.type) {
    case DType::kQ4_0:
      return load_half(w.plane[1] + 2 * block) * static_cast<float>(nibble(p0, j) - 8);
    case DType::kIQ4_NL:
      return load_half(w.plane[1] + 2 * block) * static_cast<float>(iq4_level(nibble(p0, j)));
    case DType::kQ4_1: {
      const std::byte* dm = w.plane[1] + 4 * block;
      return load_half(dm) * static_cast<float>(nibble(p0, j)) + load_half(dm + 2);
    }
    case DType::kQ5_0: {
      const int q = nibble(p0, j) | (bit_of(w.plane[1] + 4 * block, j) << 4);
      return load_half(w.plane[2] + 2 * block) * static_cast<float>(q - 16);
    }
    case DType::kQ5_1: {
      const int q = nibble(p0, j) | (bit_of(w.plane[1] + 4 * block, j) << 4);
      const std::byte* dm = w.plane[2] + 4 * block;
      return load_half(dm) * static_cast<float>(q) + load_half(dm + 2);
    }
    default:  // q8_0
      return load_half(w.plane[1] + 2 * block) *
             static_cast<float>(static_cast<int8_t>(load_byte(p0 + j)));
  }
}

INFER_DEVICE float decode_q2_k(const Matrix& w, int64_t block, int j) {
  const int sub = j / 32;
  const int q = load_byte(w.plane[0] + 64 * block + sub / 4 * 32 + j % 32) >> (2 * (sub & 3)) & 3;
  const int s = load_byte(w.plane[1] + 16 * block + j / 16);
  const std::byte* d = w.plane[2] + 4 * block;
  return load_half(d) * static_cast<float>(s & 15) * static_cast<float>(q) -
         load_half(d + 2) * static_cast<float>(s >> 4);
}

INFER_DEVICE float decode_q3_k(const Matrix& w, int64_t block, int j) {
  const int sub = j / 32, i = j / 16;  // i: of the 16 scales
  const int low = load_byte(w.plane[0] + 64 * block + sub / 4 * 32 + j % 32) >> (2 * (sub & 3)) & 3;
  const int high = load_byte(w.plane[1] + 32 * block + j % 32) >> sub & 1;
  const std::byte* s = w.plane[2] + 12 * block;
  const int scale = byte_of(scales_q3_k(load_readonly<uint32_t>(s + i / 4 % 2 * 4),
                                        load_readonly<uint32_t>(s + 8), i / 4),
                            i % 4) -
                    32;
  return load_half(w.plane[3] + 2 * block) * static_cast<float>(scale) *
         static_cast<float>((low | (high << 2)) - 4);
}

/// Q4_K and Q5_K.
INFER_DEVICE float decode_q45_k(const Matrix& w, int64_t block, int j) {
  const bool five = w.type == DType::kQ5_K;
  const int sub = j / 32;
  int q = load_byte(w.plane[0] + 128 * block + sub / 2 * 32 + j % 32) >> (4 * (sub & 1)) & 15;
  if (five) q |= (load_byte(w.plane[1] + 32 * block + j % 32) >> sub & 1) << 4;
  const auto head = load_readonly<uint4>(w.plane[five ? 2 : 1] + 16 * block);
  const int scale = byte_of(scales_k(head, sub >= 4), sub % 4);
  const int minimum = byte_of(minima_k(head, sub >= 4), sub % 4);
  return f32_from_f16(head.x) * static_cast<float>(scale) * static_cast<float>(q) -
         f32_from_f16(head.x >> 16) * static_cast<float>(minimum);
}

INFER_DEVICE float decode_q6_k(const Matrix& w, int64_t block, int j) {
  const int sub = j / 32, part = sub & 3;
  const int low = load_byte(w.plane[0] + 128 * block + sub / 4 * 64 + (part & 1) * 32 + j % 32) >>
                      (part / 2 * 4) &
                  15;
  const int high = load_byte(w.plane[1] + 64 * block + sub / 4 * 32 + j % 32) >> (2 * part) & 3;
  const auto scale = static_cast<int8_t>(load_byte(w.plane[2] + 16 * block + j / 16));
  return load_half(w.plane[3] + 2 * block) * static_cast<float>(scale) *
         static_cast<float>((low | (high << 4)) - 32);
}

INFER_DEVICE float decode_iq4_xs(const Matrix& w, int64_t block, int j) {
  const int sub = j / 32;
  const auto head = load_readonly<uint2>(w.plane[1] + 8 * block);
  const int level = iq4_level(nibble(w.plane[0] + 128 * block + 16 * sub, j % 32));
  return f32_from_f16(head.x) * static_cast<float>(scale_iq4_xs(head, sub)) *
         static_cast<float>(level);
}

/// Element (row, column) of any type that has a layout.
INFER_DEVICE float decode_element(const Matrix& w, int64_t row, int column) {
  const int64_t at = row * w.k + column;
  switch (w.type) {
    case DType::kF32:
      return load_readonly<float>(w.plane[0] + 4 * at);
    case DType::kF16:
      return load_half(w.plane[0] + 2 * at);
    case DType::kBF16:
      return float_of_bits(uint32_t{load_readonly<uint16_t>(w.plane[0] + 2 * at)} << 16);
    case DType::kQ2_K:
      return decode_q2_k(w, at / kBlock256, column % kBlock256);
    case DType::kQ3_K:
      return decode_q3_k(w, at / kBlock256, column % kBlock256);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return decode_q45_k(w, at / kBlock256, column % kBlock256);
    case DType::kQ6_K:
      return decode_q6_k(w, at / kBlock256, column % kBlock256);
    case DType::kIQ4_XS:
      return decode_iq4_xs(w, at / kBlock256, column % kBlock256);
    default:
      return decode_block32(w, at / kBlock32, column % kBlock32);
  }
}

}  // namespace infer::cuda
