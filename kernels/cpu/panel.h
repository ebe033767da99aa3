#pragma once

// How quantised weights lie in memory for kernels whose lanes run along n: panels of kLanes outputs
// (8 or 16, as many as an f32 vector of the level has lanes), cut along k into units of one file
// block of each row. Every field has kLanes entries, so one description serves every width.
//
// Within a unit the levels of 32 elements lie as eight "quads": quad i holds k = 4i..4i+3 of all
// rows, with row l in 32-bit lane l. Formats of 4 to 6 bits keep quad i (low nibble) and quad i + 4
// (high nibble) in one vector, those of 2 and 3 bits quads 0..3 and 4..7 in two vectors of four
// 2-bit fields. Rows past n are zero. Sizes below are a lane's:
//   Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL (the file's size): scale f16, minimum f16 if any, fifth
//     bits [4] if any, levels.
//   Q4_K, Q5_K (1.028 and 1.023 times the file's size, scales and minima unpacked to bytes): d f16,
//     dmin f16; then eight sub-blocks of 32 k, each in the order in which it is read, so that
//     memory is one ascending stream: scale u8, minimum u8, fifth bits [4] if any, levels [16].
//   Q6_K (the file's size): d f16; sub-blocks of scales i8 [2], upper two bits [8], levels [16].
//   Q2_K (the file's size): d f16, dmin f16; sub-blocks of scale (low nibble) and minimum (high)
//     u8 [2], levels [8].
//   Q3_K (1.036 times): d f16; sub-blocks of scales i8 [2], third bits [4], levels [8].
//   IQ4_XS (1.015 times): d f16; sub-blocks of scale i8, indices [16].
#include <cstddef>
#include <cstdint>

#include "core/base/quant_blocks.h"
#include "kernels/cpu/inline.h"

namespace infer::kern::panel {

template <int kLanes>
[[gnu::always_inline]] inline void pack_f16(uint16_t bits, int lane, uint8_t* at) {
  __builtin_memcpy(at + 2 * lane, &bits, 2);
}

/// The legacy files pair element e with e + 16 in a byte, which is quad i with quad i + 4: bytes
/// move, nibbles stay.
template <int kLanes>
[[gnu::always_inline]] inline void pack_paired_nibbles(const uint8_t* qs, int lane, uint8_t* at) {
  for (int i = 0; i < 4; ++i) {
    __builtin_memcpy(at + 4 * kLanes * i + 4 * lane, qs + 4 * i, 4);
  }
}

/// 32 levels' low nibbles, found at `shift` in qs[0..31]: element e with e + 16 in a byte.
template <int kLanes>
[[gnu::always_inline]] inline void pack_nibbles(const uint8_t* qs, int shift, int lane,
                                                uint8_t* at) {
  constexpr uint32_t kLow = 0x0f0f0f0fu;
  for (int i = 0; i < 4; ++i) {
    const uint32_t lo = (load_u32(qs + 4 * i) >> shift) & kLow;
    const uint32_t hi = (load_u32(qs + 16 + 4 * i) >> shift) & kLow;
    store_u32(at + 4 * kLanes * i + 4 * lane, lo | (hi << 4));
  }
}

/// Byte j of a lane collects bit 4 of elements j, 4 + j, ..., 28 + j: bit i belongs to quad i.
[[gnu::always_inline]] inline void pack_fifth_bits(const uint8_t* qh, int lane, uint8_t* at) {
  const uint32_t bits = load_u32(qh);
  for (int j = 0; j < 4; ++j) {
    uint32_t t = (bits >> j) & 0x11111111u;
    t = (t | (t >> 3)) & 0x03030303u;
    t = (t | (t >> 6)) & 0x000f000fu;
    at[4 * lane + j] = static_cast<uint8_t>(t | (t >> 12));
  }
}

/// Bit i of byte b of a lane becomes bit `bit` of bits[4i + b], which belongs to quad i.
[[gnu::always_inline]] inline void pack_bit(const uint8_t* bits, int bit, int lane, uint8_t* at) {
  uint32_t all = 0;
  for (int i = 0; i < 8; ++i) all |= ((load_u32(bits + 4 * i) >> bit) & 0x01010101u) << i;
  store_u32(at + 4 * lane, all);
}

/// Bits `shift` and `shift` + 1 of qs[0..31]: bits 2i, 2i + 1 of a byte belong to quad i, quads
/// 4..7 in the second vector.
template <int kLanes>
[[gnu::always_inline]] inline void pack_bit_pairs(const uint8_t* qs, int shift, int lane,
                                                  uint8_t* at) {
  for (int half = 0; half < 2; ++half) {
    uint32_t all = 0;
    for (int i = 0; i < 4; ++i) {
      all |= ((load_u32(qs + 16 * half + 4 * i) >> shift) & 0x03030303u) << (2 * i);
    }
    store_u32(at + 4 * kLanes * half + 4 * lane, all);
  }
}

/// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL. kBitsPerLevel 4 or 5; kMin: a minimum per block, else levels are
/// centred on kCentre (IQ4_NL: looked up).
template <int kLanes, class BlockT, int kBitsPerLevel, bool kMin, int kCentre>
struct LowBits {
  using Block = BlockT;
  static constexpr int kSubs = 1, kBits = kBitsPerLevel, kOffset = kCentre;
  static constexpr bool kHasMin = kMin;
  static constexpr int64_t kMinAt = 2 * kLanes, kHighAt = kMin ? 4 * kLanes : 2 * kLanes,
                           kQsAt = kHighAt + (kBits == 5 ? 4 * kLanes : 0),
                           kUnitBytes = kQsAt + 16 * kLanes;
  static_assert(kUnitBytes == kLanes * sizeof(BlockT));

  [[gnu::always_inline]] static const uint8_t* sub_block(const uint8_t* unit, int /*sub*/) {
    return unit;
  }
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    if constexpr (kMin) pack_f16<kLanes>(b.m, lane, unit + kMinAt);
    if constexpr (kBits == 5) pack_fifth_bits(b.qh, lane, unit + kHighAt);
    pack_paired_nibbles<kLanes>(b.qs, lane, unit + kQsAt);
  }
};
template <int kLanes>
using Q4_0 = LowBits<kLanes, BlockQ4_0, 4, false, 8>;
template <int kLanes>
using Q4_1 = LowBits<kLanes, BlockQ4_1, 4, true, 0>;
template <int kLanes>
using Q5_0 = LowBits<kLanes, BlockQ5_0, 5, false, 16>;
template <int kLanes>
using Q5_1 = LowBits<kLanes, BlockQ5_1, 5, true, 0>;
template <int kLanes>
using IQ4_NL = LowBits<kLanes, BlockIQ4_NL, 4, false, 0>;

template <int kLanes>
struct Q8_0 {
  using Block = BlockQ8_0;
  static constexpr int kSubs = 1, kBits = 8;
  static constexpr bool kHasMin = false;
  static constexpr int64_t kQsAt = 2 * kLanes, kUnitBytes = kQsAt + 32 * kLanes;
  static_assert(kUnitBytes == kLanes * sizeof(BlockQ8_0));

  [[gnu::always_inline]] static const uint8_t* sub_block(const uint8_t* unit, int /*sub*/) {
    return unit;
  }
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    for (int i = 0; i < 8; ++i) {
      __builtin_memcpy(unit + kQsAt + 4 * kLanes * i + 4 * lane, b.qs + 4 * i, 4);
    }
  }
};

/// Super-blocks: a head of kHeadBytes, then eight sub-blocks of kSubBytes.
template <int64_t kHeadSize, int64_t kSubSize>
struct SuperBlock {
  static constexpr int kSubs = 8;
  static constexpr int64_t kHeadBytes = kHeadSize, kSubBytes = kSubSize,
                           kUnitBytes = kHeadBytes + kSubs * kSubBytes;

  template <class Byte>
  [[gnu::always_inline]] static Byte* sub_block(Byte* unit, int sub) {
    return unit + kHeadBytes + sub * kSubBytes;
  }
};

/// Q4_K and Q5_K.
template <int kLanes, class BlockT, int kBitsPerLevel>
struct WithMin : SuperBlock<4 * kLanes, (kBitsPerLevel == 5 ? 22 : 18) * kLanes> {
  using Base = SuperBlock<4 * kLanes, (kBitsPerLevel == 5 ? 22 : 18) * kLanes>;
  using Base::sub_block;
  using Block = BlockT;
  static constexpr int kBits = kBitsPerLevel, kOffset = 0;
  static constexpr bool kHasMin = true;
  static constexpr int64_t kMinAt = 2 * kLanes;
  static constexpr int64_t kSubMinAt = kLanes, kHighAt = 2 * kLanes,  // in a sub-block
      kQsAt = kHighAt + (kBits == 5 ? 4 * kLanes : 0);
  static_assert(kQsAt + 16 * kLanes == Base::kSubBytes);

  /// Where the file keeps the 6-bit scale and minimum of sub-block j: low six bits of bytes j and j
  /// + 4 for j < 4; after that a nibble of byte j + 4 with two more bits on top of bytes j - 4 and
  /// j.
  [[gnu::always_inline]] static void pack_scales(const uint8_t* s, int lane, uint8_t* unit) {
    for (int j = 0; j < 4; ++j) {
      uint8_t* front = sub_block(unit, j) + lane;
      uint8_t* back = sub_block(unit, j + 4) + lane;
      front[0] = s[j] & 63;
      front[kSubMinAt] = s[j + 4] & 63;
      back[0] = static_cast<uint8_t>((s[j + 8] & 15) | ((s[j] >> 6) << 4));
      back[kSubMinAt] = static_cast<uint8_t>((s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4));
    }
  }
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    pack_f16<kLanes>(b.dmin, lane, unit + kMinAt);
    pack_scales(b.scales, lane, unit);
    for (int sub = 0; sub < Base::kSubs; ++sub) {
      if constexpr (kBits == 5) pack_bit(b.qh, sub, lane, sub_block(unit, sub) + kHighAt);
      pack_nibbles<kLanes>(b.qs + sub / 2 * 32, (sub & 1) * 4, lane, sub_block(unit, sub) + kQsAt);
    }
  }
};
template <int kLanes>
using Q4_K = WithMin<kLanes, BlockQ4_K, 4>;
template <int kLanes>
using Q5_K = WithMin<kLanes, BlockQ5_K, 5>;

template <int kLanes>
struct Q6_K : SuperBlock<2 * kLanes, 26 * kLanes> {
  using Block = BlockQ6_K;
  using Base = SuperBlock<2 * kLanes, 26 * kLanes>;
  static constexpr int kBits = 6, kOffset = 32;
  static constexpr bool kHasMin = false;
  static constexpr int64_t kHighAt = 2 * kLanes, kQsAt = 10 * kLanes;  // in a sub-block
  static_assert(Base::kUnitBytes == kLanes * sizeof(BlockQ6_K));

  /// In the file each half of 128 elements has 64 bytes of nibbles (parts 0, 1 low; 2, 3 high) and
  /// 32 bytes of upper bits (two a part).
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    for (int sub = 0; sub < Base::kSubs; ++sub) {
      const int part = sub & 3;
      uint8_t* at = Base::sub_block(unit, sub);
      at[lane] = static_cast<uint8_t>(b.scales[2 * sub]);
      at[kLanes + lane] = static_cast<uint8_t>(b.scales[2 * sub + 1]);
      const uint8_t* ql = b.ql + sub / 4 * 64 + (part & 1) * 32;
      const uint8_t* qh = b.qh + sub / 4 * 32;
      pack_nibbles<kLanes>(ql, part / 2 * 4, lane, at + kQsAt);
      pack_bit_pairs<kLanes>(qh, 2 * part, lane, at + kHighAt);
    }
  }
};

template <int kLanes>
struct Q2_K : SuperBlock<4 * kLanes, 10 * kLanes> {
  using Block = BlockQ2_K;
  using Base = SuperBlock<4 * kLanes, 10 * kLanes>;
  static constexpr int kBits = 2, kOffset = 0;
  [[maybe_unused]] static constexpr bool kHasMin = true;
  static constexpr int64_t kMinAt = 2 * kLanes, kQsAt = 2 * kLanes;  // the last in a sub-block
  static_assert(Base::kUnitBytes == kLanes * sizeof(BlockQ2_K));

  /// In the file each half of 128 elements has 32 bytes of levels, two bits a part of 32 elements.
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    pack_f16<kLanes>(b.dmin, lane, unit + kMinAt);
    for (int sub = 0; sub < Base::kSubs; ++sub) {
      uint8_t* at = Base::sub_block(unit, sub);
      at[lane] = b.scales[2 * sub];
      at[kLanes + lane] = b.scales[2 * sub + 1];
      pack_bit_pairs<kLanes>(b.qs + sub / 4 * 32, 2 * (sub & 3), lane, at + kQsAt);
    }
  }
};

template <int kLanes>
struct Q3_K : SuperBlock<2 * kLanes, 14 * kLanes> {
  using Block = BlockQ3_K;
  using Base = SuperBlock<2 * kLanes, 14 * kLanes>;
  static constexpr int kBits = 3, kOffset = 4;
  static constexpr bool kHasMin = false;
  static constexpr int64_t kHighAt = 2 * kLanes, kQsAt = 6 * kLanes;  // in a sub-block

  /// Where the file keeps the 6-bit scale of half sub-block j: a nibble of byte j % 8 (the low one
  /// for j < 8), the upper two bits in byte 8 + j % 4 at bit 2 * (j / 4). It stands for sc - 32.
  [[gnu::always_inline]] static uint8_t scale_of(const uint8_t* s, int j) {
    const int low = (s[j & 7] >> (4 * (j / 8))) & 15;
    const int high = (s[8 + (j & 3)] >> (2 * (j / 4))) & 3;
    return static_cast<uint8_t>((low | (high << 4)) - 32);
  }
  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    for (int sub = 0; sub < Base::kSubs; ++sub) {
      uint8_t* at = Base::sub_block(unit, sub);
      at[lane] = scale_of(b.scales, 2 * sub);
      at[kLanes + lane] = scale_of(b.scales, 2 * sub + 1);
      pack_bit(b.hmask, sub, lane, at + kHighAt);
      pack_bit_pairs<kLanes>(b.qs + sub / 4 * 32, 2 * (sub & 3), lane, at + kQsAt);
    }
  }
};

template <int kLanes>
struct IQ4_XS : SuperBlock<2 * kLanes, 17 * kLanes> {
  using Block = BlockIQ4_XS;
  using Base = SuperBlock<2 * kLanes, 17 * kLanes>;
  static constexpr int kBits = 4;
  static constexpr bool kHasMin = false;
  static constexpr int64_t kQsAt = kLanes;  // in a sub-block

  [[gnu::always_inline]] static void pack(const Block& b, int lane, uint8_t* unit) {
    pack_f16<kLanes>(b.d, lane, unit);
    for (int sub = 0; sub < Base::kSubs; ++sub) {
      const int low = (b.scales_l[sub / 2] >> (4 * (sub & 1))) & 15;
      const int high = (b.scales_h >> (2 * sub)) & 3;
      uint8_t* at = Base::sub_block(unit, sub);
      at[lane] = static_cast<uint8_t>((low | (high << 4)) - 32);
      pack_paired_nibbles<kLanes>(b.qs + 16 * sub, lane, at + kQsAt);
    }
  }
};

/// The panels of a matrix of packed type P<kLanes>.
template <class P>
[[gnu::always_inline]] inline int64_t bytes_of_panel(int64_t k) {
  return k / (32 * P::kSubs) * P::kUnitBytes;
}

/// Packs rows [n_begin, n_end) of the file's matrix, which is aligned as a Block
/// (LinearKernel::pack).
template <class P, int kLanes>
[[gnu::always_inline]] inline void pack_rows(const std::byte* file, int64_t n, int64_t k,
                                             int64_t n_begin, int64_t n_end, std::byte* packed) {
  using Block = typename P::Block;
  constexpr auto kBlockBytes = static_cast<int64_t>(sizeof(Block));
  const int64_t n_unit = k / (32 * P::kSubs);
  const int64_t rows_end = min_of(n_end, n);
  for (int64_t j = n_begin; j < rows_end; j += kLanes) {
    uint8_t* panel = reinterpret_cast<uint8_t*>(packed) + j / kLanes * bytes_of_panel<P>(k);
    const int64_t valid = min_of(kLanes, n - j);
    for (int64_t u = 0; u < n_unit; ++u) {
      uint8_t* unit = panel + u * P::kUnitBytes;
      if (valid < kLanes) __builtin_memset(unit, 0, static_cast<size_t>(P::kUnitBytes));
      for (int64_t l = 0; l < valid; ++l) {
        // No copy of the block: under AVX-512 GCC 12.2 writes one with an aligned move, but does
        // not align the stack for it.
        const std::byte* block = file + ((j + l) * n_unit + u) * kBlockBytes;
        P::pack(*reinterpret_cast<const Block*>(block), static_cast<int>(l), unit);
      }
    }
  }
}

}  // namespace infer::kern::panel
