// The AVX-512 level against the AVX2 level. Both write down the same order of summation for 8-bit
// activations (avx2/linear_fast.h), so every output has the same bits, whatever the row, tile or
// range. linear_test.cpp judges both against f64.
//
// Compiled twice: ops_avx512 runs the kernels natively and is skipped where the CPU lacks them;
// ops_avx512_simde runs the same sources through SIMDe, on AVX2 alone.
#include <cmath>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "tests/ops/linear_support.h"
#if defined(INFER_AVX512_SIMDE)
#include "kernels/cpu/avx512/install.h"
#endif

namespace infer::test {
namespace {

using kern::ActMode;
using kern::CpuKernels;

#if defined(INFER_AVX512_SIMDE)
Result<CpuKernels> avx512_table() {
  Result<CpuKernels> table = kern::select_kernels(detect_cpu_features(), "avx2");
  if (table.ok()) kern::avx512::install_linear(*table);
  return table;
}
constexpr const char* kHow = "through SIMDe";
#else
Result<CpuKernels> avx512_table() { return kern::select_kernels(detect_cpu_features(), "avx512"); }
constexpr const char* kHow = "natively";
#endif

class Avx512 : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const auto avx2 = kern::select_kernels(detect_cpu_features(), "avx2");
    const auto avx512 = avx512_table();
    if (!avx2.ok()) GTEST_SKIP() << avx2.error().message;
    if (!avx512.ok()) GTEST_SKIP() << avx512.error().message;
    const auto fast = static_cast<int>(ActMode::kFast), type = static_cast<int>(GetParam());
    avx2_ = avx2->linear[fast][type];
    avx512_ = avx512->linear[fast][type];
    ASSERT_NE(avx512_.run, avx2_.run) << "the level has no kernel of its own";
    ASSERT_TRUE(avx512_.same_act(avx2_));
    rng_.seed(seed_of_test());
  }
  void expect_same(Levels levels, Scales scales, int64_t m, int64_t n, int64_t k);

  kern::LinearKernel avx2_, avx512_;
  std::mt19937_64 rng_;
};

void Avx512::expect_same(Levels levels, Scales scales, int64_t m, int64_t n, int64_t k) {
  const std::vector<std::byte> file = make_weights(rng_, GetParam(), n, k, levels, scales);
  const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
  const std::vector<float> want = LinearRunner(avx2_, file, n, k).run(x, m);
  const std::vector<float> got = LinearRunner(avx512_, file, n, k).run(x, m);
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    ASSERT_EQ(0, std::memcmp(&got[i], &want[i], sizeof(float)))
        << got[i] << " instead of " << want[i] << ": m " << m << " n " << n << " k " << k
        << " at row " << i / static_cast<size_t>(n) << " output " << i % static_cast<size_t>(n)
        << ", seed " << seed_of_test();
  }
}

TEST_P(Avx512, BitsAreThoseOfAvx2) {
  const bool legacy = quant_type(GetParam()).block_len == 32;
  for (const int64_t k : {legacy ? 32 : 256, legacy ? 544 : 768}) {
    for (const int64_t n : {1, 15, 16, 17, 48}) {
      for (const int64_t m : {1, 2, 3, 4, 7, 8, 15, 16, 17, 37}) {
        ASSERT_NO_FATAL_FAILURE(expect_same(Levels::kRandom, Scales::kNormal, m, n, k));
      }
    }
  }
}

TEST_P(Avx512, ExtremeLevelsAndScales) {
  for (const Levels levels :
       {Levels::kRandom, Levels::kAllOnes, Levels::kAllZeros, Levels::kSignBits}) {
    for (const Scales scales : {Scales::kNormal, Scales::kLargest, Scales::kSubnormal}) {
      ASSERT_NO_FATAL_FAILURE(expect_same(levels, scales, 21, 19, 768));
    }
  }
}

TEST_P(Avx512, MoreRowsThanACacheBlock) {
  ASSERT_NO_FATAL_FAILURE(expect_same(Levels::kRandom, Scales::kNormal, 77, 17, 4096));
}

std::string type_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}
INSTANTIATE_TEST_SUITE_P(All, Avx512,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                         DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL,
                                         DType::kIQ4_XS),
                         type_name);

/// F32, F16 and BF16 have an order of summation of their own: judged against f64, and every row on
/// its own has the bits that it has among others.
class Avx512Float : public testing::TestWithParam<DType> {};

TEST_P(Avx512Float, MatchesF64AndBitsDependOnNoOtherRow) {
  const auto table = avx512_table();
  if (!table.ok()) GTEST_SKIP() << table.error().message;
  const DType type = GetParam();
  const kern::LinearKernel& kernel =
      table->linear[static_cast<int>(ActMode::kFast)][static_cast<int>(type)];
  std::mt19937_64 rng(seed_of_test());
  const int64_t n = 45;
  for (const int64_t k : {1, 15, 16, 577, 1043}) {
    const auto file = make_weights(rng, type, n, k, Levels::kRandom, Scales::kNormal);
    LinearRunner runner(kernel, file, n, k);
    runner.set_l2_bytes(int64_t{4} << 20);
    for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 64, 131}) {
      const std::vector<float> x = make_inputs(rng, m, k, Inputs::kNormal);
      const std::vector<float> got = runner.run(x, m);
      const Reference ref = reference_f64(type, file, n, k, runner.seen(x, m), m,
                                          rounding_steps(kernel, runner.quantised_act(), k));
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_LE(std::fabs(static_cast<double>(got[i]) - ref.value[i]), ref.bound[i])
            << "m " << m << " k " << k << " at " << i;
      }
      for (int64_t r = 0; r < m; ++r) {
        const std::vector<float> one = runner.run(std::span(x).subspan(r * k, k), 1);
        ASSERT_EQ(0, std::memcmp(one.data(), got.data() + r * n, n * sizeof(float)))
            << "row " << r << " of " << m << ", k " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Avx512Float, testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         type_name);

/// Says in the log which way the kernels ran.
TEST(Avx512Level, How) {
  const auto table = avx512_table();
  if (!table.ok()) GTEST_SKIP() << "[ not run ] avx512 kernels: " << table.error().message;
  std::cout << "[ level    ] avx512 kernels run " << kHow << '\n';
}

#if !defined(INFER_AVX512_SIMDE)
TEST(Avx512Level, IsTakenWhereTheCpuHasIt) {
  // The features are the host's: a level's installers need its instructions themselves.
  const CpuFeatures cpu = detect_cpu_features();
  const auto named = kern::select_kernels(cpu, "avx512");
  if (!named.ok()) GTEST_SKIP() << "[ not run ] by its name: " << named.error().message;
  EXPECT_STREQ(named->isa, "avx512");
  const auto best = kern::select_kernels(cpu, "");
  ASSERT_TRUE(best.ok());
  EXPECT_STREQ(best->isa, "avx512");
  EXPECT_STREQ(kern::select_kernels(cpu, "avx2").value().isa, "avx2");
}

TEST(Avx512Level, MissingFeaturesAreNamed) {
  CpuFeatures cpu;
  cpu.avx2 = cpu.fma = cpu.f16c = cpu.avx512f = cpu.avx512bw = cpu.avx512dq = true;
  const auto table = kern::select_kernels(cpu, "avx512");
  ASSERT_FALSE(table.ok());
  EXPECT_EQ(table.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(table.error().message,
            "--isa avx512: this CPU lacks avx512vl, avx512_vnni (it has generic, avx2)");
}
#endif

}  // namespace
}  // namespace infer::test
