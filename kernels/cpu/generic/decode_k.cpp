#include <cstring>

#include "kernels/cpu/generic/decode_row.h"
#include "kernels/cpu/generic/unpack.h"

namespace infer::kern::generic {
namespace {

/// w = (d * sc) * q - m * mn; kHasMin false leaves the subtraction out, which keeps the sign of a
/// zero.
template <class Block, bool kHasMin>
void decode_super(const std::byte* src, int64_t n_elem, float* dst) {
  for (int64_t ib = 0; ib < n_elem / kBlock256; ++ib) {
    Block b;
    std::memcpy(&b, src + ib * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
    for (int sub = 0; sub < kSubBlocks<Block>; ++sub) {
      Unpacked32 u;
      unpack(b, sub, u);
      for (int i = 0; i < kBlock32; ++i) {
        const int half = i / 16;  // a scale a half of the sub-block
        const float scaled = (u.d * static_cast<float>(u.sc[half])) * static_cast<float>(u.q[i]);
        *dst++ = kHasMin ? scaled - u.m * static_cast<float>(u.mn[half]) : scaled;
      }
    }
  }
}

}  // namespace

void decode_q2_k(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockQ2_K, true>(src, n_elem, dst);
}
void decode_q3_k(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockQ3_K, false>(src, n_elem, dst);
}
void decode_q4_k(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockQ4_K, true>(src, n_elem, dst);
}
void decode_q5_k(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockQ5_K, true>(src, n_elem, dst);
}
void decode_q6_k(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockQ6_K, false>(src, n_elem, dst);
}
void decode_iq4_xs(const std::byte* src, int64_t n_elem, float* dst) {
  decode_super<BlockIQ4_XS, false>(src, n_elem, dst);
}

}  // namespace infer::kern::generic
