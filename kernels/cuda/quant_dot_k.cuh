#pragma once

#include "kernels/cuda/quant_dot.cuh"

/// QuantDot of the types in blocks of 256.
namespace infer::cuda {

/// IQ4_XS: sub-block of 32 a unit.
template <>
struct QuantDot<DType::kIQ4_XS> : Blocks32 {
  static constexpr Offset kOffset = Offset::kNone;
  struct Raw {
    uint4 qs;
    uint2 head;  ///< d, scales_h; scales_l
  };
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 8; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 8, 8);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint2>(at[1])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t unit) {
    const int scale = scale_iq4_xs(r.head, static_cast<int>(unit & 7));
    Terms<2> t = with_scale(f32_from_f16(r.head.x) * static_cast<float>(scale), 0.0f);
    unpack_iq4(r.qs, t.level);
    return t;
  }
};

/// Q4_K, Q5_K: 16 bytes of nibbles are half of sub-block 2j (low) and of 2j + 1 (high).
struct Blocks4K {
  static constexpr int kUnit = 32, kGroups = 2;
  static constexpr Offset kOffset = Offset::kBlock;
  static constexpr bool kOneScale = false;
  static constexpr unsigned kSwizzleMask = 1, kSwizzleStep = 2;
  INFER_DEVICE static unsigned group(unsigned unit, unsigned g) {
    return unit / 2 * 4 + unit % 2 + 2 * g;
  }

  /// Of sub-blocks 2j (low byte) and 2j + 1. head: d, dmin and the 12 bytes.
  INFER_DEVICE static uint32_t scale_pair(const uint4& head, uint32_t unit) {
    const uint32_t j = unit >> 1 & 3;
    return scales_k(head, j >= 2) >> (16 * (j & 1));
  }
  INFER_DEVICE static uint32_t minimum_pair(const uint4& head, uint32_t unit) {
    const uint32_t j = unit >> 1 & 3;
    return minima_k(head, j >= 2) >> (16 * (j & 1));
  }
  INFER_DEVICE static Terms<2> scales(const uint4& head, uint32_t unit) {
    const float d = f32_from_f16(head.x), dmin = f32_from_f16(head.x >> 16);
    const uint32_t scale = scale_pair(head, unit), minimum = minimum_pair(head, unit);
    Terms<2> t;
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      t.d[g] = d * static_cast<float>(byte_of(scale, g));
      t.c[g] = dmin * static_cast<float>(byte_of(minimum, g));
    }
    return t;
  }
  /// c of the group whose block this unit answers for: g = unit % 2.
  INFER_DEVICE static float own_offset(const uint4& head, uint32_t unit) {
    const int minimum = byte_of(minimum_pair(head, unit), static_cast<int>(unit & 1));
    return f32_from_f16(head.x >> 16) * static_cast<float>(minimum);
  }
};

template <>
struct QuantDot<DType::kQ4_K> : Blocks4K {
  struct Raw {
    uint4 qs, head;
  };
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 8, 16);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint4>(at[1])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t unit) {
    Terms<2> t = scales(r.head, unit);
    unpack_nibbles(r.qs, t.level);
    return t;
  }
};

template <>
struct QuantDot<DType::kQ5_K> : Blocks4K {
  struct Raw {
    uint4 qs, qh, head;
  };
  static constexpr int kParts = 3;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : p == 1 ? 32 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 8 * 2 + unit % 2, 16);
    at[2] = plane_at(p, 2, unit / 8, 16);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint4>(at[1]), load_readonly<uint4>(at[2])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t unit) {
    Terms<2> t = scales(r.head, unit);
    unpack_nibbles(r.qs, t.level);
    const uint32_t shift = unit & 6;  // bit 2j of a byte of qh belongs to the low nibble
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = word_of(r.qh, i) >> shift;
      t.level[0][i] |= bits << 4 & 0x10101010u;
      t.level[1][i] |= bits << 3 & 0x10101010u;
    }
    return t;
  }
};

/// Q6_K: 16 bytes of ql are groups r and r + 4 (low, high nibbles) of one half of the block, for
/// r = unit % 4.
template <>
struct QuantDot<DType::kQ6_K> {
  static constexpr int kUnit = 32, kGroups = 2;
  static constexpr bool kOneScale = false;
  static constexpr Offset kOffset = Offset::kNone;
  static constexpr unsigned kSwizzleMask = 1, kSwizzleStep = 4;
  struct Raw {
    uint4 ql, qh;
    uint2 scales;  ///< of the half's eight groups
    uint32_t d;
  };
  INFER_DEVICE static unsigned group(unsigned unit, unsigned g) {
    return unit / 4 * 8 + unit % 4 + 4 * g;
  }
  static constexpr int kParts = 4;
  INFER_DEVICE static constexpr int bytes_of_8(int p) {
    return p == 0 ? 128 : p == 1 ? 64 : p == 2 ? 16 : 2;
  }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 4 * 2 + unit % 2, 16);
    at[2] = plane_at(p, 2, unit / 4, 8);
    at[3] = plane_at(p, 3, unit / 8, 2);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint4>(at[1]), load_readonly<uint2>(at[2]),
            load_readonly<uint16_t>(at[3])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t unit) {
    Terms<2> t;
    unpack_nibbles(r.ql, t.level);
    const uint32_t shift = unit & 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = word_of(r.qh, i) >> shift;
      t.level[0][i] = signed_levels<32>(t.level[0][i] | (bits << 4 & 0x30303030u));
      t.level[1][i] = signed_levels<32>(t.level[1][i] | (bits & 0x30303030u));
    }
    const float d = f32_from_f16(r.d);
    const int at = static_cast<int>(unit & 3);
    t.d[0] = d * static_cast<float>(signed_byte(r.scales.x, at));
    t.d[1] = d * static_cast<float>(signed_byte(r.scales.y, at));
    t.c[0] = t.c[1] = 0.0f;
    return t;
  }
};

/// Q2_K, Q3_K: 16 bytes hold two bits of groups b, b + 2, b + 4, b + 6 of one half of the block,
/// for b = unit % 2.
struct Blocks2K {
  static constexpr int kUnit = 64, kGroups = 4;
  static constexpr bool kOneScale = false;
  static constexpr unsigned kSwizzleMask = 3, kSwizzleStep = 2;
  INFER_DEVICE static unsigned group(unsigned unit, unsigned g) {
    return unit / 2 * 8 + unit % 2 + 2 * g;
  }
};

template <>
struct QuantDot<DType::kQ2_K> : Blocks2K {
  static constexpr Offset kOffset = Offset::kGroup;
  struct Raw {
    uint4 qs;
    uint2 scales;  ///< of the half's eight groups, minima in the high nibbles
    uint32_t dm;
  };
  static constexpr int kParts = 3;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : p == 1 ? 32 : 8; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 2, 8);
    at[2] = plane_at(p, 2, unit / 4, 4);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint2>(at[1]),
            load_readonly<uint32_t>(at[2])};
  }
  INFER_DEVICE static Terms<4> decode(const Raw& r, uint32_t unit) {
    const float d = f32_from_f16(r.dm), dmin = f32_from_f16(r.dm >> 16);
    Terms<4> t;
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const int at = 2 * (g & 1) + static_cast<int>(unit & 1);
      const int both = byte_of(g < 2 ? r.scales.x : r.scales.y, at);
      t.d[g] = d * static_cast<float>(both & 15);
      t.c[g] = dmin * static_cast<float>(both >> 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) t.level[g][i] = bits_of_bytes<2>(word_of(r.qs, i), 2 * g);
    }
    return t;
  }
};

template <>
struct QuantDot<DType::kQ3_K> : Blocks2K {
  static constexpr Offset kOffset = Offset::kNone;
  struct Raw {
    uint4 qs, mask;
    uint32_t scales[3];
    uint32_t d;
  };
  static constexpr int kParts = 4;
  INFER_DEVICE static constexpr int bytes_of_8(int p) {
    return p == 0 ? 128 : p == 1 ? 64 : p == 2 ? 24 : 4;
  }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 4 * 2 + unit % 2, 16);
    at[2] = plane_at(p, 2, unit / 4, 12);
    at[3] = plane_at(p, 3, unit / 4, 2);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]),
            load_readonly<uint4>(at[1]),
            {load_readonly<uint32_t>(at[2]), load_readonly<uint32_t>(at[2] + 4),
             load_readonly<uint32_t>(at[2] + 8)},
            load_readonly<uint16_t>(at[3])};
  }
  INFER_DEVICE static Terms<4> decode(const Raw& r, uint32_t unit) {
    const int half = static_cast<int>(unit >> 1 & 1);
    uint32_t scale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) scale[i] = scales_q3_k(r.scales[i], r.scales[2], 2 * half + i);
    const float d = f32_from_f16(r.d);
    Terms<4> t;
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const int at = 2 * (g & 1) + static_cast<int>(unit & 1);
      t.d[g] = d * static_cast<float>(byte_of(scale[g / 2], at) - 32);
      t.c[g] = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t high = word_of(r.mask, i) >> (4 * half + g) << 2 & 0x04040404u;
        t.level[g][i] = signed_levels<4>(bits_of_bytes<2>(word_of(r.qs, i), 2 * g) | high);
      }
    }
    return t;
  }
};

}  // namespace infer::cuda
