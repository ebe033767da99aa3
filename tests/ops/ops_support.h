#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/base/cpu_features.h"
#include "kernels/cpu/dispatch.h"

/// What the tests of the non-linear kernels share: ISA levels, seeded numbers, comparisons that NaN
/// fails.
namespace infer::test {

inline constexpr double kEps = 0x1p-24;  ///< largest relative error of one f32 rounding
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInf = std::numeric_limits<float>::infinity();

/// The levels this build carries and this CPU has. Levels left out are named on stdout.
inline std::vector<std::string> isa_levels() {
  std::vector<std::string> levels;
  for (const std::string_view isa : kern::built_isa_levels()) {
    if (kern::select_kernels(detect_cpu_features(), isa).ok()) {
      levels.emplace_back(isa);
    } else {
      std::printf("level %.*s is not tested: this CPU lacks it\n", static_cast<int>(isa.size()),
                  isa.data());
    }
  }
  return levels;
}

/// Seed made from the running test's full name.
inline uint32_t seed_of_test() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const std::string name = std::string(info->test_suite_name()) + "." + info->name();
  uint32_t h = 2166136261u;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  return h;
}

/// A test of one ISA level with numbers seeded by its name.
class IsaTest : public testing::TestWithParam<std::string> {
 protected:
  IsaTest()
      : rng(seed_of_test()), kernels(*kern::select_kernels(detect_cpu_features(), GetParam())) {}

  float uniform(float lo, float hi) { return std::uniform_real_distribution<float>(lo, hi)(rng); }
  int64_t pick(int64_t lo, int64_t hi) {
    return std::uniform_int_distribution<int64_t>(lo, hi)(rng);
  }
  std::vector<float> uniforms(int64_t n, float lo, float hi) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = uniform(lo, hi);
    return v;
  }

  std::mt19937 rng;
  kern::CpuKernels kernels;
};

inline std::string isa_name(const testing::TestParamInfo<std::string>& info) { return info.param; }

/// Tests of a fixture derived from IsaTest, once a level.
#define INFER_FOR_EACH_ISA(fixture)                                                      \
  INSTANTIATE_TEST_SUITE_P(Isa, fixture, testing::ValuesIn(::infer::test::isa_levels()), \
                           ::infer::test::isa_name)

/// Spacing of f32 at |x|.
inline double ulp_of(double x) {
  if (!(std::fabs(x) >= 0x1p-126)) return 0x1p-149;
  return std::ldexp(1.0, std::ilogb(x) - 23);
}

inline bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

/// First index where the bits differ, or -1.
inline int64_t first_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same_bits(a[i], b[i])) return static_cast<int64_t>(i);
  }
  return -1;
}

/// Fails, with the place, where |got - want| <= bound does not hold.
inline testing::AssertionResult within(std::span<const float> got, std::span<const double> want,
                                       std::span<const double> bound) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double err = std::fabs(got[i] - want[i]);
    if (!(err <= bound[i])) {
      return testing::AssertionFailure() << "at " << i << ": got " << got[i] << ", want " << want[i]
                                         << ", error " << err << ", bound " << bound[i];
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace infer::test
