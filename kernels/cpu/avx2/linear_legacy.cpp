// Q4_0, Q4_1, Q5_0, Q5_1: one float scale (and minimum) per 32 elements. Orders and bounds:
// linear_fast.h. A unit is as large as eight file blocks: scales f16 [8], minima f16 [8] if any,
// upper bits [32] if any, levels.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

/// Byte j of a lane collects bit 4 of elements j, 4 + j, ..., 28 + j: bit i belongs to quad i.
void pack_fifth_bits(const uint8_t* qh, int lane, uint8_t* at) {
  const uint32_t bits = load_u32(qh);
  for (int j = 0; j < 4; ++j) {
    uint32_t t = (bits >> j) & 0x11111111u;
    t = (t | (t >> 3)) & 0x03030303u;
    t = (t | (t >> 6)) & 0x000f000fu;
    at[4 * lane + j] = static_cast<uint8_t>(t | (t >> 12));
  }
}

/// kBitsPerLevel 4 or 5; kMin: a minimum per block, else levels are centred on kCentre.
template <class BlockT, int kBitsPerLevel, bool kMin, int kCentre>
struct LowBits {
  using Block = BlockT;
  static constexpr int kSubs = 1, kBits = kBitsPerLevel, kOffset = kCentre;
  static constexpr bool kHasMin = kMin, kSplitScale = false;
  static constexpr int64_t kMinAt = 16, kHighAt = kMin ? 32 : 16,
                           kQsAt = kHighAt + (kBits == 5 ? 32 : 0);
  static constexpr int64_t kUnitBytes = kQsAt + 128;
  static_assert(kUnitBytes == 8 * sizeof(BlockT));

  static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16(b.d, lane, unit);
    if constexpr (kMin) pack_f16(b.m, lane, unit + kMinAt);
    if constexpr (kBits == 5) pack_fifth_bits(b.qh, lane, unit + kHighAt);
    pack_paired_nibbles(b.qs, lane, unit + kQsAt);
  }
  template <int kVec>
  [[gnu::always_inline]] static void levels(const uint8_t* unit, int /*sub*/, __m256i& lo,
                                            __m256i& hi) {
    nibble_levels(unit + kQsAt, kVec, lo, hi);
    if constexpr (kBits == 5) add_bit<kVec, 4>(load_u8x32(unit + kHighAt), lo, hi);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int /*sub*/) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = kMin ? load_f16x8(unit + kMinAt) : _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_set1_epi16(1);
    return s;
  }
  [[gnu::always_inline]] static __m256i offset_sum(const FastScales& /*s*/, __m256i half_sums) {
    return _mm256_madd_epi16(half_sums, _mm256_set1_epi16(kCentre));
  }
  static void decode(const uint8_t* unit, int sub, float* dst) {
    AffineScales s;
    s.scale_lo = s.scale_hi = load_f16x8(unit);
    s.offset_lo = kMin ? load_f16x8(unit + kMinAt)
                       : _mm256_mul_ps(s.scale_lo, _mm256_set1_ps(-static_cast<float>(kCentre)));
    s.offset_hi = s.offset_lo;
    decode_unsigned<LowBits>(unit, sub, s, dst);
  }
};
using Q4_0 = LowBits<BlockQ4_0, 4, false, 8>;
using Q4_1 = LowBits<BlockQ4_1, 4, true, 0>;
using Q5_0 = LowBits<BlockQ5_0, 5, false, 16>;
using Q5_1 = LowBits<BlockQ5_1, 5, true, 0>;

}  // namespace

void install_linear_legacy(CpuKernels& table) {
  FastKernel<Q4_0>::install(table, DType::kQ4_0);
  FastKernel<Q4_1>::install(table, DType::kQ4_1);
  FastKernel<Q5_0>::install(table, DType::kQ5_0);
  FastKernel<Q5_1>::install(table, DType::kQ5_1);
}

}  // namespace infer::kern::avx2
