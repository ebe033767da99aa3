#include <cstring>

#include "kernels/cpu/generic/decode_row.h"
#include "kernels/cpu/generic/unpack.h"

namespace infer::kern::generic {
namespace {

template <class Block>
Block load_block(const std::byte* src, int64_t i) {
  Block b;
  std::memcpy(&b, src + i * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
  return b;
}

/// w = d * q, exact.
template <class Block>
void decode_scaled(const std::byte* src, int64_t n_elem, float* dst) {
  for (int64_t ib = 0; ib < n_elem / kBlock32; ++ib) {
    Unpacked32 u;
    unpack(load_block<Block>(src, ib), 0, u);
    for (int i = 0; i < kBlock32; ++i) dst[ib * kBlock32 + i] = u.d * static_cast<float>(u.q[i]);
  }
}

/// w = d * q + m with m from the file: added (not "minus minus"), so that the sign of zero is the
/// file's.
template <class Block>
void decode_affine(const std::byte* src, int64_t n_elem, float* dst) {
  for (int64_t ib = 0; ib < n_elem / kBlock32; ++ib) {
    const Block b = load_block<Block>(src, ib);
    const float m = f32_from_f16(b.m);
    Unpacked32 u;
    unpack(b, 0, u);
    for (int i = 0; i < kBlock32; ++i)
      dst[ib * kBlock32 + i] = u.d * static_cast<float>(u.q[i]) + m;
  }
}

}  // namespace

void decode_f32(const std::byte* src, int64_t n_elem, float* dst) {
  std::memcpy(dst, src, static_cast<size_t>(n_elem) * sizeof(float));
}

void decode_f16(const std::byte* src, int64_t n_elem, float* dst) {
  for (int64_t i = 0; i < n_elem; ++i) {
    uint16_t h;
    std::memcpy(&h, src + 2 * i, 2);
    dst[i] = f32_from_f16(h);
  }
}

void decode_bf16(const std::byte* src, int64_t n_elem, float* dst) {
  for (int64_t i = 0; i < n_elem; ++i) {
    uint16_t h;
    std::memcpy(&h, src + 2 * i, 2);
    dst[i] = f32_from_bf16(h);
  }
}

void decode_q4_0(const std::byte* src, int64_t n_elem, float* dst) {
  decode_scaled<BlockQ4_0>(src, n_elem, dst);
}
void decode_q4_1(const std::byte* src, int64_t n_elem, float* dst) {
  decode_affine<BlockQ4_1>(src, n_elem, dst);
}
void decode_q5_0(const std::byte* src, int64_t n_elem, float* dst) {
  decode_scaled<BlockQ5_0>(src, n_elem, dst);
}
void decode_q5_1(const std::byte* src, int64_t n_elem, float* dst) {
  decode_affine<BlockQ5_1>(src, n_elem, dst);
}
void decode_q8_0(const std::byte* src, int64_t n_elem, float* dst) {
  decode_scaled<BlockQ8_0>(src, n_elem, dst);
}
void decode_iq4_nl(const std::byte* src, int64_t n_elem, float* dst) {
  decode_scaled<BlockIQ4_NL>(src, n_elem, dst);
}

}  // namespace infer::kern::generic
