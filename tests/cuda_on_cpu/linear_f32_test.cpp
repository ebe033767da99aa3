#include <array>

#include "tests/cuda_on_cpu/linear_run.h"

namespace infer::cuda::test {
namespace {

using infer::test::kLinearTypes;

constexpr auto kF32 = LinearRun::Kernel::kF32;

class LinearF32 : public Emulated {};

TEST_F(LinearF32, EveryTypeFewRows) {
  for (const DType type : kLinearTypes) {
    for (const auto& [m, live] : {std::pair(1, 1), {8, 5}}) {
      LinearCase c;
      c.items = {{type, 19, true}};
      c.k = weight_layout(type).block_len == 256 ? 2304 : 1056;
      c.m = m, c.live = live;
      c.epilogue.kind = Epilogue::kResidualAdd;
      LinearRun(c).check(kF32);
    }
  }
}

TEST_F(LinearF32, EveryTypeManyRows) {
  for (const DType type : kLinearTypes) {
    LinearCase c;
    c.items = {{type, 37, true}};
    c.k = weight_layout(type).block_len == 256 ? 512 : 288;
    c.m = 70, c.live = 67;
    c.epilogue.kind = Epilogue::kResidualAdd;
    LinearRun(c).check(kF32);
  }
}

TEST_F(LinearF32, TileEdges) {
  for (const auto& [m, live, n, k] : {std::array{9, 1, 1, 1},
                                      {16, 16, 31, 3},
                                      {64, 63, 32, 127},
                                      {65, 64, 33, 128},
                                      {65, 65, 64, 129},
                                      {129, 65, 65, 257},
                                      {257, 255, 5, 31}}) {
    for (const DType type : {DType::kF32, DType::kF16}) {
      LinearCase c;
      c.items = {{type, n, false}};
      c.k = k, c.m = m, c.live = live;
      LinearRun(c).check(kF32);
    }
  }
}

TEST_F(LinearF32, Epilogues) {
  for (const int m : {4, 12}) {
    for (const DType type : {DType::kF32, DType::kQ5_K}) {
      LinearCase c;
      c.k = 256, c.m = m, c.live = m - 1;
      c.x_scale = 2.0f;
      c.items = {{type, 21, true}, {type, 21, true}};
      c.epilogue.kind = Epilogue::kGlu;
      LinearRun(c).check(kF32);
      c.epilogue.kind = Epilogue::kNone;
      c.items = {{type, 40, true}, {type, 3, false}, {DType::kQ8_0, 33, true}};
      c.epilogue.scale = 0.5f;
      c.epilogue.softcap = 2.0f;
      LinearRun(c).check(kF32);
    }
  }
}

TEST_F(LinearF32, WrongNumbersOfLiveRows) {
  for (const int m : {3, 12, 66}) {
    LinearCase c;
    c.items = {{DType::kQ8_0, 5, true}};
    c.k = 64, c.m = c.live = m;
    LinearRun(c).check_wrong_live_rows(kF32);
  }
}

TEST_F(LinearF32, NoRowsAreSuccess) {
  LinearF32Args args;
  args.items.n = 1;
  args.items.item[0].w = make_matrix(DType::kQ4_0, 4, 32, 1, nullptr);
  EXPECT_EQ(linear_f32(args, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // nothing ran
}

TEST_F(LinearF32, SeedsAndArchitectures) {
  LinearCase c;
  c.items = {{DType::kQ3_K, 40, true}};
  c.k = 512, c.m = 12, c.live = 11;
  std::vector<std::vector<float>> first;
  for (const int architecture : {75, 80}) {
    emulated::Options options;
    options.architecture = architecture;
    reset(options);
    const LinearRun run(c);
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      const auto out = run.run(kF32);
      if (first.empty()) first = out;
      ASSERT_EQ(out, first) << "seed " << seed << ", sm_" << architecture;
    }
  }
}

}  // namespace
}  // namespace infer::cuda::test
