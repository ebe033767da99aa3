#include "core/base/half.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace infer {
namespace {

/// A half from its definition, in double: exact for every finite value.
double f16_value(uint16_t h) {
  const int exponent = (h >> 10) & 0x1f;
  const int fraction = h & 0x3ff;
  const double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

bool is_f16_nan(uint16_t h) { return (h & 0x7fff) > 0x7c00; }

TEST(Half, EveryF16IsItsValue) {
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float got = f32_from_f16(h);
    if (is_f16_nan(h)) {
      ASSERT_TRUE(std::isnan(got)) << i;
      continue;
    }
    ASSERT_EQ(std::bit_cast<uint32_t>(got),
              std::bit_cast<uint32_t>(static_cast<float>(f16_value(h))))
        << i;
  }
}

TEST(Half, EveryF16ComesBack) {
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const uint16_t quiet = is_f16_nan(h) ? static_cast<uint16_t>(h | 0x200) : h;
    ASSERT_EQ(f16_from_f32(f32_from_f16(h)), quiet) << i;
  }
}

/// Between two neighbouring halves: below, at and above the middle. Ties go to the even one.
TEST(Half, RoundsToNearestEvenBetweenEveryPairOfNeighbours) {
  for (uint32_t i = 0; i < 0x7c00; ++i) {
    const auto lo = static_cast<uint16_t>(i);
    const auto hi = static_cast<uint16_t>(i + 1);
    // The step above the largest finite half is as long as the one below it.
    const double lo_value = f16_value(lo);
    const double hi_value = hi == 0x7c00 ? 65536.0 : f16_value(hi);
    const auto middle =
        static_cast<float>((lo_value + hi_value) / 2);  // exact: one bit more than a half has
    const uint16_t even = (lo & 1) == 0 ? lo : hi;
    const float inf = std::numeric_limits<float>::infinity();
    for (const uint16_t sign : {uint16_t{0}, uint16_t{0x8000}}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      ASSERT_EQ(f16_from_f32(s * middle), even | sign) << i;
      ASSERT_EQ(f16_from_f32(s * std::nextafter(middle, 0.0f)), lo | sign) << i;
      ASSERT_EQ(f16_from_f32(s * std::nextafter(middle, inf)), hi | sign) << i;
    }
  }
}

TEST(Half, BeyondTheRangeIsInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f16_from_f32(65519.996f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(f16_from_f32(-std::numeric_limits<float>::max()), 0xfc00);
  EXPECT_EQ(f16_from_f32(inf), 0x7c00);
  EXPECT_EQ(f16_from_f32(-inf), 0xfc00);
  EXPECT_EQ(f16_from_f32(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f16_from_f32(-std::numeric_limits<float>::denorm_min()), 0x8000);
  // A NaN whose payload lives in the low bits only must not turn into infinity.
  EXPECT_TRUE(is_f16_nan(f16_from_f32(std::bit_cast<float>(0x7f800001u))));
}

#if defined(__x86_64__)
__attribute__((target("f16c"))) uint16_t f16_by_hardware(float f) {
  typedef float F4 __attribute__((vector_size(16)));
  typedef int16_t H8 __attribute__((vector_size(16)));
  const H8 h = __builtin_ia32_vcvtps2ph(F4{f, 0, 0, 0}, 0);
  return static_cast<uint16_t>(h[0]);
}
__attribute__((target("f16c"))) float f32_by_hardware(uint16_t h) {
  typedef float F4 __attribute__((vector_size(16)));
  typedef int16_t H8 __attribute__((vector_size(16)));
  const F4 f = __builtin_ia32_vcvtph2ps(H8{static_cast<int16_t>(h), 0, 0, 0, 0, 0, 0, 0});
  return f[0];
}

TEST(Half, SameBitsAsF16C) {
  if (!__builtin_cpu_supports("f16c")) GTEST_SKIP() << "this CPU has no F16C";
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto h = static_cast<uint16_t>(i);
    ASSERT_EQ(std::bit_cast<uint32_t>(f32_from_f16(h)), std::bit_cast<uint32_t>(f32_by_hardware(h)))
        << i;
  }
  for (uint64_t u = 0; u <= 0xffffffffu;
       u += 257) {  // odd step: every low and high pattern comes by
    const float f = std::bit_cast<float>(static_cast<uint32_t>(u));
    ASSERT_EQ(f16_from_f32(f), f16_by_hardware(f)) << u;
  }
}
#endif

TEST(Half, Bf16KeepsTheUpperBitsAndRoundsToNearestEven) {
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float f = f32_from_bf16(h);
    ASSERT_EQ(std::bit_cast<uint32_t>(f), i << 16);
    const bool nan = (i & 0x7fff) > 0x7f80;
    ASSERT_EQ(bf16_from_f32(f), nan ? (h | 0x40) : h) << i;
    if ((i & 0x7fff) >= 0x7f80) continue;
    const auto up = static_cast<uint16_t>(h + 1);
    ASSERT_EQ(bf16_from_f32(std::bit_cast<float>((i << 16) | 0x7fff)), h) << i;
    ASSERT_EQ(bf16_from_f32(std::bit_cast<float>((i << 16) | 0x8000)), (h & 1) == 0 ? h : up) << i;
    ASSERT_EQ(bf16_from_f32(std::bit_cast<float>((i << 16) | 0x8001)), up) << i;
  }
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace infer
