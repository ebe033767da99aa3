#pragma once

#include <cstdint>

#include "core/base/dtype.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/quant_bits.cuh"
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
/// Formats: core/base/quant_blocks.h, planes: weight_layout.h. Here: blocks of 32; those of 256 are
/// in quant_dot_k.cuh.
namespace infer::cuda {

struct Planes {
  const std::byte* at[kMaxPlanes];
};
INFER_DEVICE const std::byte* plane_at(const Planes& p, int plane, uint32_t index, int bytes) {
  return p.at[plane] + static_cast<uint64_t>(index) * static_cast<uint64_t>(bytes);
}
/// Where a unit's parts are, each in its plane.
template <int kParts>
using UnitParts = const std::byte* [kParts];

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

// --- Blocks of 32 -------------------------------------------------------------------------------

INFER_DEVICE void unpack_nibbles(const uint4& qs, uint32_t (&level)[2][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) level[i / 4][i % 4] = levels_of_4_bits(word_of(qs, i % 4), i / 4);
}
INFER_DEVICE void unpack_5_bits(const uint4& qs, uint32_t qh, uint32_t (&level)[2][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i)
    level[i / 4][i % 4] = levels_of_5_bits(word_of(qs, i % 4), qh, i / 4, i % 4);
}
INFER_DEVICE void unpack_iq4(const uint4& qs, uint32_t (&level)[2][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t first = iq4_levels<0>(word_of(qs, i));
    const uint32_t second = iq4_levels<0>(word_of(qs, i) >> 16);
    level[0][i] = iq4_half(first, second, 0);
    level[1][i] = iq4_half(first, second, 1);
  }
}

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
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 2);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
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
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint32_t>(at[1])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<2> t = with_scale(f32_from_f16(r.dm), -f32_from_f16(r.dm >> 16));
    unpack_nibbles(r.qs, t.level);
    return t;
  }
};

template <>
struct QuantDot<DType::kQ5_0> : Blocks32 {
  struct Raw {
    uint4 qs;
    uint32_t qh, d;
  };
  static constexpr int kParts = 3;
  INFER_DEVICE static constexpr int bytes_of_8(int p) { return p == 0 ? 128 : p == 1 ? 32 : 16; }
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
    at[2] = plane_at(p, 2, unit, 2);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
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
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit, 4);
    at[2] = plane_at(p, 2, unit, 4);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return {load_readonly<uint4>(at[0]), load_readonly<uint32_t>(at[1]),
            load_readonly<uint32_t>(at[2])};
  }
  INFER_DEVICE static Terms<2> decode(const Raw& r, uint32_t /*unit*/) {
    Terms<2> t = with_scale(f32_from_f16(r.dm), -f32_from_f16(r.dm >> 16));
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
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    QuantDot<DType::kQ4_0>::find(p, unit, at);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
    return QuantDot<DType::kQ4_0>::load(at);
  }
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
  INFER_DEVICE static void find(const Planes& p, uint32_t unit, UnitParts<kParts>& at) {
    at[0] = plane_at(p, 0, unit, 16);
    at[1] = plane_at(p, 1, unit / 2, 2);
  }
  INFER_DEVICE static Raw load(const UnitParts<kParts>& at) {
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
