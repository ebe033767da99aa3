#include <string>
#include <tuple>

#include "core/base/half.h"
#include "core/base/quant_types.h"
#include "tests/cuda_on_cpu/linear_gemm_case.h"

namespace infer::cuda::test {

using infer::test::Inputs;
using infer::test::kLinearTypes;
using infer::test::Levels;
using infer::test::Scales;
using infer::test::seed_of_test;

namespace {

/// Rows and weights about the edges of tiles (8, 16, 64, 128), k from one block on.
std::vector<GemmShape> shapes_of(DType type) {
  const int block = std::max(32, static_cast<int>(quant_type(type).block_len));
  return {{1, 1, block, {1}},           {2, 2, 3 * block, {65}},    {9, 8, 2 * block, {15}},
          {17, 16, 5 * block, {33}},    {64, 63, block, {64}},      {65, 65, block, {7}},
          {130, 129, block, {129}},     {66, 2, 2 * block, {257}},  {16, 15, 2048, {17}},
          {128, 128, 3 * block, {127}}, {130, 130, 2 * block, {63}}};
}

std::vector<DType> types_that(bool (*has)(DType)) {
  std::vector<DType> types;
  for (const DType type : kLinearTypes)
    if (has(type)) types.push_back(type);
  return types;
}

}  // namespace

/// Architecture and type.
class Gemm : public testing::TestWithParam<std::tuple<int, DType>> {
 protected:
  void SetUp() override { reset({.architecture = std::get<0>(GetParam())}); }
  static DType type() { return std::get<1>(GetParam()); }

  static void test_shapes(GemmKernel kernel) {
    uint64_t seed = seed_of_test();
    for (const GemmShape& shape : shapes_of(type())) {
      SCOPED_TRACE(testing::Message() << "m " << shape.m << " live " << shape.live << " n "
                                      << shape.n[0] << " k " << shape.k);
      const GemmProblem problem(
          {.kernel = kernel, .types = {type()}, .shape = shape, .seed = ++seed});
      problem.expect_right(problem.run());
    }
  }

  static void test_seeds(GemmKernel kernel, const GemmShape& shape) {
    const GemmProblem problem(
        {.kernel = kernel, .types = {type()}, .shape = shape, .seed = seed_of_test()});
    const auto first = problem.run();
    problem.expect_right(first);
    for (uint64_t seed = 2; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      EXPECT_EQ(problem.run(), first) << "seed " << seed;
    }
  }
};

std::string name_of_param(const testing::TestParamInfo<std::tuple<int, DType>>& info) {
  return "sm_" + std::to_string(std::get<0>(info.param)) + "_" +
         std::string(name_of(std::get<1>(info.param)));
}

class GemmQ8 : public Gemm {};
INSTANTIATE_TEST_SUITE_P(, GemmQ8,
                         testing::Combine(testing::Values(75, 80),
                                          testing::ValuesIn(types_that(has_gemm_q8))),
                         name_of_param);
class GemmHalf : public Gemm {};
INSTANTIATE_TEST_SUITE_P(, GemmHalf,
                         testing::Combine(testing::Values(75, 80),
                                          testing::ValuesIn(types_that(has_gemm_half))),
                         name_of_param);

TEST_P(GemmQ8, ShapesMatchF64) { test_shapes(GemmKernel::kQ8); }
TEST_P(GemmHalf, SmallTilesMatchF64) { test_shapes(GemmKernel::kHalfSmall); }
TEST_P(GemmHalf, LargeTilesMatchF64) { test_shapes(GemmKernel::kHalfLarge); }

TEST_P(GemmQ8, TenSeedsGiveTheSameBits) { test_seeds(GemmKernel::kQ8, {18, 17, 768, {66}}); }
TEST_P(GemmHalf, TenSeedsGiveTheSameBits) {
  test_seeds(GemmKernel::kHalfSmall, {34, 33, 256, {66}});
}

// Levels and scales at their ends, where integer sums and minima are largest.
TEST_P(GemmQ8, ExtremesMatchF64) {
  const GemmShape shape = {17, 17, 256, {17}};
  uint64_t seed = seed_of_test();
  for (const Levels levels : {Levels::kAllOnes, Levels::kAllZeros, Levels::kSignBits})
    for (const Scales scales : {Scales::kNormal, Scales::kLargest, Scales::kSubnormal})
      for (const Inputs inputs : {Inputs::kPlusOne, Inputs::kMinusOne, Inputs::kAlternating}) {
        const GemmProblem problem({.types = {type()},
                                   .shape = shape,
                                   .levels = levels,
                                   .scales = scales,
                                   .inputs = inputs,
                                   .seed = ++seed});
        problem.expect_right(problem.run());
      }
}
// Weights below f16's normal range; those above become infinite, but for bf16 on sm_75.
TEST_P(GemmHalf, ExtremesMatchF64) {
  const GemmShape shape = {17, 17, 256, {17}};
  uint64_t seed = seed_of_test();
  for (const Levels levels : {Levels::kRandom, Levels::kAllOnes, Levels::kAllZeros})
    for (const Scales scales : {Scales::kNormal, Scales::kSubnormal}) {
      const GemmProblem problem({.kernel = GemmKernel::kHalfSmall,
                                 .types = {type()},
                                 .shape = shape,
                                 .levels = levels,
                                 .scales = scales,
                                 .seed = ++seed});
      problem.expect_right(problem.run());
    }
}

/// Epilogues, several items and what else does not depend on the type.
class GemmEpilogue : public testing::TestWithParam<std::tuple<int, GemmKernel>> {
 protected:
  void SetUp() override { reset({.architecture = std::get<0>(GetParam())}); }
  static void test(std::vector<DType> types, const GemmShape& shape, const LinearEpilogue& e,
                   bool bias, uint64_t seed) {
    const GemmProblem problem({.kernel = std::get<1>(GetParam()),
                               .types = std::move(types),
                               .shape = shape,
                               .epilogue = e,
                               .bias = bias,
                               .seed = seed});
    problem.expect_right(problem.run());
  }
};
INSTANTIATE_TEST_SUITE_P(, GemmEpilogue,
                         testing::Combine(testing::Values(75, 80),
                                          testing::Values(GemmKernel::kQ8, GemmKernel::kHalfSmall,
                                                          GemmKernel::kHalfLarge,
                                                          GemmKernel::kEpilogueOnly)));

TEST_P(GemmEpilogue, ScaleSoftcapResidualAct) {
  uint64_t seed = seed_of_test();
  for (const Epilogue kind :
       {Epilogue::kNone, Epilogue::kResidualAdd, Epilogue::kAct, Epilogue::kActMul})
    for (const float softcap : {0.0f, 0.75f})
      for (const bool bias : {false, true})
        test({DType::kQ4_1}, {18, 17, 96, {67}},
             {.kind = kind, .glu = GluKind::kGeluErf, .scale = 0.5f, .softcap = softcap}, bias,
             ++seed);
}

TEST_P(GemmEpilogue, ActsAndGlusOfEveryKind) {
  uint64_t seed = seed_of_test();
  for (const GluKind glu : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf})
    for (const float scale : {1.0f, 20.0f}) {  // also far into the tails
      test({DType::kQ8_0}, {3, 3, 64, {70}}, {.kind = Epilogue::kAct, .glu = glu, .scale = scale},
           false, ++seed);
      for (const int n : {1, 8, 31, 33, 64, 65, 129})
        test({DType::kQ8_0, DType::kQ8_0}, {9, 8, 64, {n, n}},
             {.kind = Epilogue::kGlu, .glu = glu, .scale = scale}, n % 2 == 1, ++seed);
    }
}

TEST_P(GemmEpilogue, GluOfManyRows) {
  test({DType::kQ5_1, DType::kQ5_1}, {131, 130, 32, {100, 100}},
       {.kind = Epilogue::kGlu, .softcap = 3.0f}, true, seed_of_test());
}

// Three items: of one type they share a launch, of three each has its own.
TEST_P(GemmEpilogue, ItemsOfSeveralTypesAndSizes) {
  const LinearEpilogue e = {.scale = 2.0f};
  test({DType::kQ4_0, DType::kQ4_0, DType::kQ4_0}, {20, 19, 64, {65, 1, 130}}, e, true,
       seed_of_test());
  test({DType::kQ6_K, DType::kQ4_K, DType::kQ6_K}, {20, 19, 256, {64, 9, 33}}, e, true,
       seed_of_test() + 1);
  test({DType::kQ2_K, DType::kQ5_0, DType::kIQ4_XS}, {2, 1, 256, {5, 128, 33}}, e, false,
       seed_of_test() + 2);
}

TEST_P(GemmEpilogue, NoLiveRows) {
  test({DType::kQ8_0}, {5, 0, 64, {70}}, {.kind = Epilogue::kResidualAdd}, true, seed_of_test());
}

class GemmHalfPlain : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { reset({.architecture = GetParam()}); }
};
INSTANTIATE_TEST_SUITE_P(, GemmHalfPlain, testing::Values(75, 80));

// Rows of weights and activations that do not begin at multiples of 16 bytes.
TEST_P(GemmHalfPlain, AnyDepth) {
  uint64_t seed = seed_of_test();
  for (const DType type : {DType::kF16, DType::kBF16})
    for (const int k : {1, 2, 7, 8, 31, 33, 44, 72, 172}) {
      const GemmProblem problem({.kernel = GemmKernel::kHalfSmall,
                                 .types = {type},
                                 .shape = {5, 4, k, {9}},
                                 .seed = ++seed});
      problem.expect_right(problem.run());
    }
}

// Both sizes of tiles have one order of summation; linear_gemm_half may choose by any rule.
TEST_P(GemmHalfPlain, TilesGiveTheSameBits) {
  GemmCase c;
  c.types = {DType::kQ4_K}, c.shape = {66, 65, 512, {130}}, c.seed = seed_of_test();
  c.kernel = GemmKernel::kHalfSmall;
  const auto small = GemmProblem(c).run();
  c.kernel = GemmKernel::kHalfLarge;
  EXPECT_EQ(GemmProblem(c).run(), small);
  c.kernel = GemmKernel::kHalfChosen;
  EXPECT_EQ(GemmProblem(c).run(), small);
  c.shape = {257, 257, 32, {5504}};  // large enough for large tiles
  c.types = {DType::kQ4_0};
  const GemmProblem chosen(c);
  chosen.expect_right(chosen.run());
}

TEST_P(GemmHalfPlain, WeightsOfBf16StayInTheRangeOfF16) {
  std::vector<uint16_t> w(64, bf16_from_f32(0x1p100f)), x(32, f16_from_f32(0.0f));
  for (size_t i = 32; i < 64; ++i) w[i] = bf16_from_f32(-0x1p100f);
  const bool bf16 = GetParam() >= 80;
  x[3] = bf16 ? bf16_from_f32(1.0f) : f16_from_f32(1.0f);
  DeviceArray<uint16_t> device_w(w), device_x(x);
  DeviceArray<int32_t> n_live(std::vector<int32_t>{1});
  DeviceArray<float> out(2);
  GemmArgs args;
  args.half = device_x.data(), args.m = 1, args.n_live = n_live.data(), args.items.n = 1;
  args.items.item[0].w =
      make_matrix(DType::kBF16, 2, 32, 1, reinterpret_cast<const std::byte*>(device_w.data()));
  args.items.item[0].out = out.data();
  ASSERT_EQ(linear_gemm_half(args, nullptr), cudaSuccess);
  const float most = bf16 ? 0x1p100f : 65504.0f;
  EXPECT_EQ(out.host(), (std::vector<float>{most, -most}));
}

TEST(GemmTypes, WhatIsTaken) {
  reset({});
  for (const DType type : kLinearTypes) {
    const bool quantised = quant_type(type).block_len > 1;
    EXPECT_EQ(has_gemm_q8(type), quantised);
    EXPECT_EQ(has_gemm_half(type), type != DType::kF32);
  }
  EXPECT_FALSE(has_gemm_q8(DType::kIQ2_S));
  GemmArgs args;
  args.m = 1, args.items.n = 1;
  args.items.item[0].w = make_matrix(DType::kF32, 1, 32, 1, nullptr);
  EXPECT_EQ(linear_gemm_q8(args, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(linear_gemm_half(args, nullptr), cudaErrorInvalidValue);
  args.items.item[0].w = make_matrix(DType::kQ8_0, 1, 32, 1, nullptr);
  args.epilogue.kind = Epilogue::kGlu;  // of one matrix
  EXPECT_EQ(linear_gemm_q8(args, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(linear_epilogue(args, nullptr), cudaErrorInvalidValue);
  args.items.n = kMaxItems + 1;
  EXPECT_EQ(linear_epilogue(args, nullptr), cudaErrorInvalidValue);
  args.m = 0;
  EXPECT_EQ(linear_gemm_q8(args, nullptr), cudaSuccess);
  EXPECT_EQ(linear_gemm_half(args, nullptr), cudaSuccess);
  EXPECT_EQ(linear_epilogue(args, nullptr), cudaSuccess);
}

}  // namespace infer::cuda::test
