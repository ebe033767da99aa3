#include <numeric>

#include "core/base/quant_types.h"
#include "tests/cuda_on_cpu/moe_case.h"

/// Experts on tensor cores.
namespace infer::cuda::test {

using infer::test::kLinearTypes;

namespace {

/// By which of these kernels a type meets prepared activations.
std::vector<MoeKernel> kernels_of(DType type) {
  if (has_gemm_q8(type)) return {MoeKernel::kQ8, MoeKernel::kHalf};
  if (has_gemm_half(type)) return {MoeKernel::kHalf};
  return {};
}

/// Rows that choose one expert each.
MoeCase case_of(DType type, MoeKernel kernel, std::vector<int> rows, int n, int k) {
  MoeCase c;
  c.type = type, c.kernel = kernel;
  c.n_expert = static_cast<int>(rows.size()), c.n_used = 1;
  c.live = std::accumulate(rows.begin(), rows.end(), 0), c.m = c.live + 1;
  c.n = n, c.k = k, c.rows = std::move(rows);
  return c;
}

}  // namespace

class MoeGemm : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { reset({.architecture = GetParam()}); }
};
INSTANTIATE_TEST_SUITE_P(, MoeGemm, testing::Values(75, 80));

TEST_P(MoeGemm, EveryTypeMatchesF64) {
  for (const DType type : kLinearTypes) {
    for (const MoeKernel kernel : kernels_of(type)) {
      MoeCase c;
      c.type = type, c.kernel = kernel;
      c.n_expert = 5, c.n_used = 3, c.m = 12, c.live = 11, c.n = 37, c.k = 256;
      check(c);
    }
  }
}

// From one pair to more than four small tiles, about the edges of tiles; none for some experts, all
// for one; more experts than a warp has lanes, in all places of it.
TEST_P(MoeGemm, RowsOfExpertsMatchF64) {
  std::vector<std::vector<int>> cases = {{1},       {0, 0, 257},     {63, 0, 64, 0, 65, 1},
                                         {0, 9, 0}, {127, 129, 128}, {2, 1}};
  std::vector<int> many(70);
  for (size_t e = 0; e < many.size(); ++e) many[e] = static_cast<int>(e * 7 % 4);
  many[31] = 65, many[32] = 66, many[69] = 1;
  cases.push_back(many);
  std::vector<int> few(40);  // more experts than pairs
  few[0] = 1, few[33] = 2;
  cases.push_back(few);
  for (const std::vector<int>& rows : cases) {
    check(case_of(DType::kQ4_0, MoeKernel::kQ8, rows, 33, 32));
    check(case_of(DType::kQ5_1, MoeKernel::kHalf, rows, 65, 32));
  }
}

TEST_P(MoeGemm, AnyShapeMatchesF64) {
  for (const GluKind glu : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf}) {
    MoeCase c;
    c.n_expert = 3, c.m = 20, c.live = 19, c.glu = glu;
    c.type = DType::kQ8_0, c.kernel = MoeKernel::kQ8, c.n = 1, c.k = 96;
    check(c);
    c.kernel = MoeKernel::kHalf, c.n = 130;
    check(c);
    c.type = DType::kF16, c.n = 7, c.k = 44;
    check(c);
    c.type = DType::kBF16, c.k = 33;
    check(c);
    c.type = DType::kQ4_K, c.kernel = MoeKernel::kQ8, c.n = 65, c.k = 768;
    check(c);
  }
}

// As many rows of an expert, and weights, as make large tiles of 16-bit products the better ones.
TEST_P(MoeGemm, LargeTilesMatchF64) {
  MoeRun run(case_of(DType::kQ4_0, MoeKernel::kHalf, {130, 0, 127}, 4096, 32));
  const auto out = run.down();
  expect_near(out, run.down_reference(), kUntouched, "down " + run.name());
}

TEST_P(MoeGemm, TenSeedsGiveTheSameBits) {
  for (const MoeKernel kernel : {MoeKernel::kQ8, MoeKernel::kHalf}) {
    MoeCase c;
    c.type = DType::kQ4_K, c.kernel = kernel;
    c.n_expert = 3, c.m = 36, c.live = 35, c.n = 70, c.k = 512;
    MoeRun glu(c), down(c);
    const auto first_glu = glu.glu(), first_down = down.down();
    for (uint64_t seed = 2; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      ASSERT_EQ(glu.run_glu(), first_glu) << "seed " << seed;
      ASSERT_EQ(down.run_down(), first_down) << "seed " << seed;
    }
  }
}

TEST_P(MoeGemm, NothingAlive) {
  for (const MoeKernel kernel : {MoeKernel::kQ8, MoeKernel::kHalf}) {
    MoeRun run(case_of(DType::kQ4_0, kernel, {0, 0}, 5, 64));
    for (const auto& out : {run.glu(), run.down()})
      EXPECT_EQ(out, std::vector<float>(out.size(), kUntouched));
  }
}

TEST_P(MoeGemm, WhatIsRefused) {
  const auto none = reinterpret_cast<uint16_t*>(uintptr_t{256});
  MoeGluArgs args;
  args.m = 1, args.n_used = 1, args.act.half = none;
  args.gate = args.up = make_matrix(DType::kF32, 1, 32, 2, nullptr);
  EXPECT_EQ(moe_glu(args, nullptr), cudaErrorInvalidValue);
  args.gate = make_matrix(DType::kF16, 1, 32, 2, nullptr);
  EXPECT_EQ(moe_glu(args, nullptr), cudaErrorInvalidValue);
  args.gate = args.up = make_matrix(DType::kF16, 1, 32, 2, nullptr);
  args.act = {}, args.act.q8.q = reinterpret_cast<int8_t*>(none);
  EXPECT_EQ(moe_glu(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace infer::cuda::test
