// Activations in 8 bits: error bound, block sums, edge cases, and the same bytes from every ISA
// level.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/generic/linear_act.h"
#include "tests/ops/linear_support.h"

namespace infer::test {
namespace {

using kern::ActBlock;

std::vector<ActBlock> quantise(const std::vector<float>& x) {
  std::vector<ActBlock> blocks(x.size() / 32);
  kern::generic::prepare_q8(x.data(), static_cast<int64_t>(x.size()),
                            reinterpret_cast<std::byte*>(blocks.data()));
  return blocks;
}

/// Blocks of many magnitudes: normal values times powers of two, ties, signed zeros, one value
/// alone, constants.
std::vector<float> varied_inputs(std::mt19937_64& rng) {
  std::normal_distribution<float> dist;
  std::vector<float> x;
  for (int exponent = -140; exponent <= 120; exponent += 4) {
    for (int i = 0; i < 32; ++i) x.push_back(std::ldexp(dist(rng), exponent));
  }
  for (int i = 0; i < 32; ++i)
    x.push_back(i == 0 ? 127.0f : static_cast<float>(i) - 15.5f);  // ties, d = 1
  for (int i = 0; i < 32; ++i) x.push_back(i % 2 == 0 ? 0.0f : -0.0f);
  for (int i = 0; i < 32; ++i) x.push_back(i == 17 ? -3.0f : 0.0f);
  for (int i = 0; i < 32; ++i) x.push_back(-0.3f);
  return x;
}

TEST(ActQ8, RoundsToNearestWithExactSums) {
  std::mt19937_64 rng(seed_of_test());
  const std::vector<float> x = varied_inputs(rng);
  const std::vector<ActBlock> blocks = quantise(x);
  for (size_t ib = 0; ib < blocks.size(); ++ib) {
    const ActBlock& b = blocks[ib];
    float max = 0.0f;
    int sum[2] = {0, 0};
    for (size_t i = 0; i < 32; ++i) max = std::max(max, std::fabs(x[ib * 32 + i]));
    for (size_t i = 0; i < 32; ++i) {
      sum[i / 16] += b.q[i];
      ASSERT_GE(b.q[i], -127);
      const double err =
          std::fabs(static_cast<double>(x[ib * 32 + i]) - static_cast<double>(b.d) * b.q[i]);
      // Half a step, plus the roundings of max / 127, 127 / max and x * inv: each moves x / d by at
      // most 127 * 2^-24.
      const double bound = max < kern::kActTiny ? max : b.d * (0.5 + 4 * 127 * 0x1p-24);
      ASSERT_FALSE(!(err <= bound)) << "block " << ib << " element " << i;
    }
    ASSERT_EQ(b.h[0], sum[0]);
    ASSERT_EQ(b.h[1], sum[1]);
    ASSERT_EQ(b.s, b.d * static_cast<float>(sum[0] + sum[1]));
  }
}

TEST(ActQ8, TiesGoToEven) {
  std::vector<float> x(32, 0.0f);
  x[0] = 127.0f, x[1] = 0.5f, x[2] = 1.5f, x[3] = 2.5f, x[4] = -0.5f, x[5] = -3.5f;
  const ActBlock b = quantise(x)[0];
  EXPECT_EQ(b.d, 1.0f);
  EXPECT_EQ(std::vector<int>(b.q, b.q + 6), (std::vector<int>{127, 0, 2, 2, 0, -4}));
}

TEST(ActQ8, NotANumberPoisonsItsBlockOnly) {
  for (const float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(96, 1.0f);
    x[40] = bad;
    const std::vector<ActBlock> b = quantise(x);
    EXPECT_TRUE(std::isnan(b[1].d) && std::isnan(b[1].s));
    EXPECT_EQ(b[1].q[0], 0);
    EXPECT_FALSE(std::isnan(b[0].d) || std::isnan(b[2].d));
  }
}

TEST(ActQ8, EveryLevelPreparesTheSameBytes) {
  std::mt19937_64 rng(seed_of_test());
  std::vector<float> x = varied_inputs(rng);
  x[33] = std::nanf("");
  const auto k = static_cast<int64_t>(x.size());
  for (const std::string_view isa : kern::built_isa_levels()) {
    const auto table = kern::select_kernels(detect_cpu_features(), isa);
    if (!table.ok()) continue;
    for (const int mode : {0, 1}) {
      SCOPED_TRACE(testing::Message() << isa << " mode " << mode);
      const auto& kernel = table->linear[mode][static_cast<int>(DType::kQ4_K)];
      const auto generic = mode == 0 ? kern::generic::prepare_q8 : kern::generic::prepare_f32;
      const auto bytes = static_cast<size_t>(kernel.act_bytes(k));
      std::vector<float> got(bytes / 4), want(bytes / 4);
      kernel.prepare(x.data(), k, reinterpret_cast<std::byte*>(got.data()));
      generic(x.data(), k, reinterpret_cast<std::byte*>(want.data()));
      EXPECT_EQ(0, std::memcmp(got.data(), want.data(), bytes));
    }
  }
}

TEST(ActQ8, KernelsOfOneLevelSharePreparedRows) {
  for (const std::string_view isa : kern::built_isa_levels()) {
    const auto table = kern::select_kernels(detect_cpu_features(), isa);
    if (!table.ok()) continue;
    const auto& fast = table->linear[static_cast<int>(kern::ActMode::kFast)];
    EXPECT_TRUE(
        fast[static_cast<int>(DType::kQ4_K)].same_act(fast[static_cast<int>(DType::kQ6_K)]));
    EXPECT_FALSE(
        fast[static_cast<int>(DType::kQ4_K)].same_act(fast[static_cast<int>(DType::kF16)]));
  }
}

TEST(Dispatch, RefusesUnknownAndMissingLevels) {
  const auto unknown = kern::select_kernels(detect_cpu_features(), "avx3");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  const auto missing = kern::select_kernels(CpuFeatures{}, kern::built_isa_levels().back());
  if (kern::built_isa_levels().size() > 1) {
    ASSERT_FALSE(missing.ok());
    EXPECT_EQ(missing.error().code, ErrorCode::kUnsupported);
  }
  const auto best = kern::select_kernels(CpuFeatures{}, "");
  ASSERT_TRUE(best.ok());
  EXPECT_STREQ(best->isa, "generic");
}

}  // namespace
}  // namespace infer::test
