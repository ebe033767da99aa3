#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "core/base/dtype.h"
#include "core/base/quant_blocks.h"
#include "kernels/cuda/act_q8.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_layout.h"

/// Quantised weights as a lane of a gemv reads them: a *unit* is what one load of 16 bytes of
/// levels brings (16, 32 or 64 weights of one row), and stands for kGroups groups of 16 neighbours
/// along k. Lanes take every 8th, 16th or 32nd unit, so that a lane's units differ by whole eights
/// and most of what depends on the unit is the same for all of them.
///
///   find(planes, unit, at)    where the unit's parts are; `unit` counts from the matrix' first row
///   bytes_of_8(p)             eight units further, part p is so many bytes further
///   Raw load(at)              the loads alone
///   Terms decode(raw, unit)   w = d[g] * level - c[g] for group g; levels are signed bytes; `unit`
///                             modulo eight
///   int group(unit, g)        which 16 of the row they are; `unit` counts from the row's beginning
///
/// Formats: core/base/quant_blocks.h, planes: weight_layout.h. Here: bits, and blocks of 32; those
/// of 256 are in quant_dot_k.cuh.
namespace infer::cuda {

struct Planes {
  const std::byte* at[kMaxPlanes];
};
/// Where the parts of a unit are.
template <int kParts>
using Parts = const std::byte* [kParts];

template <int kGroups>
struct Terms {
  uint32_t level[kGroups][4];  ///< four neighbours a word, the first in the low byte
  float d[kGroups];
  float c[kGroups];
};

/// What c belongs to.
enum class Offset : uint8_t {
  kNone,
  kUnit,   ///< both groups are one block of 32 with one d and c
  kBlock,  ///< groups 0 and 1 lie in two blocks of 32, the other half of which is in the
           ///< neighbouring unit
  kGroup,  ///< each group has its own
};

// --- Bits
// -------------------------------------------------------------------------------------------

/// Bytes of {low, high} picked by the four low nibbles of `selector`, of which three bits count.
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
INFER_DEVICE float f32_from_f16(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}
INFER_DEVICE uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
/// Bit i of `bits` in byte i.
INFER_DEVICE uint32_t spread_4_bits(uint32_t bits) {
  return (bits & 15) * 0x00204081u & 0x01010101u;
}
/// Bytes of 0..127 minus `offset`, as signed bytes: nothing is borrowed from the next byte.
INFER_DEVICE uint32_t subtract_bytes(uint32_t bytes, uint32_t offset) {
  return ((bytes | 0x80808080u) - offset * 0x01010101u) ^ 0x80808080u;
}
INFER_DEVICE int signed_byte(uint32_t word, int i) {
  return static_cast<int8_t>(word >> (8 * i) & 255);
}
INFER_DEVICE int byte_of(uint32_t word, int i) { return static_cast<int>(word >> (8 * i) & 255); }
/// Signed byte i of `word` as a float, without a conversion, of which a multiprocessor starts few:
/// its bits below those of 2^23, which a subtraction takes off.
INFER_DEVICE float float_of_level(uint32_t word, int i) {
  const uint32_t bits =
      byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7540u | static_cast<uint32_t>(i));
  return float_of_bits(bits) - 8388736.0f;
}
INFER_DEVICE const std::byte* plane_at(const Planes& p, int plane, uint32_t index, int bytes) {
  return p.at[plane] + static_cast<uint64_t>(index) * static_cast<uint64_t>(bytes);
}

// --- Blocks of 32 -------------------------------------------------------------------------------

/// Low nibbles are weights 0..15, high ones 16..31.
INFER_DEVICE void unpack_nibbles(const uint4& qs, uint32_t (&level)[2][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    level[0][i] = word_of(qs, i) & 0x0f0f0f0fu;
    level[1][i] = word_of(qs, i) >> 4 & 0x0f0f0f0fu;
  }
}
/// kIq4Levels of the eight nibbles of a word: low nibbles in `low`, high ones in `high`.
INFER_DEVICE void unpack_iq4(uint32_t word, uint32_t& low, uint32_t& high) {
  constexpr uint32_t kTable[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
  uint32_t both[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t nibbles = word >> (16 * i);
    const uint32_t from_low = byte_perm(kTable[0], kTable[1], nibbles & 0x7777u);
    const uint32_t from_high = byte_perm(kTable[2], kTable[3], nibbles & 0x7777u);
    both[i] = byte_perm(from_low, from_high, 0x3210u | (nibbles & 0x8888u) >> 1);
  }
  low = byte_perm(both[0], both[1], 0x6420u);
  high = byte_perm(both[0], both[1], 0x7531u);
}
INFER_DEVICE void unpack_iq4(const uint4& qs, uint32_t (&level)[2][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) unpack_iq4(word_of(qs, i), level[0][i], level[1][i]);
}
static_assert(kIq4Levels[0] == -127 && kIq4Levels[15] == 113);  // kTable holds them as bytes

INFER_DEVICE Terms<2> with_scale(float d, float c) {
  Terms<2> t;
  t.d[0] = t.d[1] = d;
  t.c[0] = t.c[1] = c;
  return t;
}

/// Types of one block of 32 a unit. Swizzle: see act_slot().
struct Blocks32 {
  static constexpr int kUnit = 32, kGroups = 2;
  static constexpr Offset kOffset = Offset::kUnit;
  static constexpr bool kOneScale = true;  ///< of both groups, in one block of activations
  static constexpr unsigned kSwizzleMask = 1, kSwizzleStep = 1;
  INFER_DEVICE static unsigned group(unsigned unit, unsigned g) { return 2 * unit + g; }
};

template <DType kType>
struct QuantDot;

template <>
struct QuantDot<DType::kQ4_0> : Blocks32 {
  struct Raw {
    uint4 qs;
    uint32_t d;
  };
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 2);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint16_t>(at[1])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    const float d = f32_from_f16(r.d);
    Terms<2> t = with_scale(d, 8.0f * d);
    unpack_nibbles(r.qs, t.level);
    return t;
  }
};

template <>
struct QuantDot<DType::kQ4_1> : Blocks32 {
  struct Raw {
    uint4 qs;
    uint32_t dm;
  };
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 32; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint32_t>(at[1])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<2> t = with_scale(f32_from_f16(r.dm & 0xffff), -f32_from_f16(r.dm >> 16));
    unpack_nibbles(r.qs, t.level);
    return t;
  }
};

/// Nibbles and a fifth bit each: bit i of qh is that of weight i.
INFER_DEVICE void unpack_5_bits(const uint4& qs, uint32_t qh, uint32_t (&level)[2][4]) {
  unpack_nibbles(qs, level);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    level[0][i] |= spread_4_bits(qh >> (4 * i)) << 4;
    level[1][i] |= spread_4_bits(qh >> (4 * i + 16)) << 4;
  }
}

template <>
struct QuantDot<DType::kQ5_0> : Blocks32 {
  struct Raw {
    uint4 qs;
    uint32_t qh, d;
  };
  static constexpr int kParts = 3;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : p == 1 ? 32 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
    at[2] = plane_at(p, 2, unit, 2);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint32_t>(at[1]),
            load_readonly<uint16_t>(at[2])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    const float d = f32_from_f16(r.d);
    Terms<2> t = with_scale(d, 16.0f * d);
    unpack_5_bits(r.qs, r.qh, t.level);
    return t;
  }
};

template <>
struct QuantDot<DType::kQ5_1> : Blocks32 {
  struct Raw {
    uint4 qs;
    uint32_t qh, dm;
  };
  static constexpr int kParts = 3;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : p == 1 ? 32 : 32; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
    at[2] = plane_at(p, 2, unit, 4);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint32_t>(at[1]),
            load_readonly<uint32_t>(at[2])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<2> t = with_scale(f32_from_f16(r.dm & 0xffff), -f32_from_f16(r.dm >> 16));
    unpack_5_bits(r.qs, r.qh, t.level);
    return t;
  }
};

template <>
struct QuantDot<DType::kIQ4_NL> : Blocks32 {
  static constexpr Offset kOffset = Offset::kNone;
  using Raw = QuantDot<DType::kQ4_0>::Raw;
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    QuantDot<DType::kQ4_0>::find(p, unit, at);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) { return QuantDot<DType::kQ4_0>::load(at); }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<2> t = with_scale(f32_from_f16(r.d), 0.0f);
    unpack_iq4(r.qs, t.level);
    return t;
  }
};

/// Half a block a unit.
template <>
struct QuantDot<DType::kQ8_0> {
  static constexpr int kUnit = 16, kGroups = 1;
  static constexpr bool kOneScale = false;
  static constexpr Offset kOffset = Offset::kNone;
  static constexpr unsigned kSwizzleMask = 0, kSwizzleStep = 0;
  struct Raw {
    uint4 qs;
    uint32_t d;
  };
  INFER_DEVICE static unsigned group(unsigned unit, unsigned /*g*/) { return unit; }
  static constexpr int kParts = 2;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : 8; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, Parts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 2, 2);
  }
  INFER_DEVICE static Raw load(const Parts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint16_t>(at[1])};
  }
  INFER_DEVICE static Terms<1> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<1> t;
#pragma unroll
    for (int i = 0; i < 4; ++i) t.level[0][i] = word_of(r.qs, i);
    t.d[0] = f32_from_f16(r.d);
    t.c[0] = 0.0f;
    return t;
  }
};

}  // namespace infer::cuda
