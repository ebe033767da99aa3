#include <array>
#include <cmath>
#include <limits>

#include "core/base/quant_types.h"
#include "tests/cuda_on_cpu/linear_run.h"

namespace infer::cuda::test {
namespace {

using infer::test::kLinearTypes;
using infer::test::Levels;
using infer::test::Scales;

constexpr auto kGemv = LinearRun::Kernel::kGemv;

int block_len(DType type) { return weight_layout(type).block_len; }

class LinearGemv : public Emulated {};

// Every type with every number of rows a kernel is made for, one more than a turn of the lanes.
TEST_F(LinearGemv, EveryTypeAndRowCount) {
  for (const DType type : kLinearTypes) {
    for (const auto& [m, live] : {std::pair(1, 1), {2, 2}, {3, 3}, {8, 6}}) {
      LinearCase c;
      c.items = {{type, 19, true}};
      c.k = block_len(type) == 256 ? 2304 : 1056;
      c.m = m, c.live = live;
      c.norm = NormKind::kRms;
      c.epilogue.kind = Epilogue::kResidualAdd;
      LinearRun(c).check(kGemv);
    }
  }
}

// From one block on, with groups of 8, 16 and 32 lanes a row.
TEST_F(LinearGemv, EveryTypeAndLength) {
  for (const DType type : kLinearTypes) {
    for (const int blocks : {1, 2, 3, 5, 9}) {
      LinearCase c;
      c.k = blocks * block_len(type);
      c.items = {{type, 33, false}};
      c.m = c.live = 1;
      LinearRun(c).check(kGemv);
    }
  }
}

TEST_F(LinearGemv, RowsOfFloatsNeedNotBeAligned) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int k : {1, 2, 3, 5, 7, 9, 31, 250, 257}) {
      for (const NormKind norm : {NormKind::kNone, NormKind::kRms, NormKind::kLayer}) {
        LinearCase c;
        c.items = {{type, 9, true}};
        c.k = k, c.m = c.live = 2;
        c.norm = norm;
        LinearRun(c).check(kGemv);
      }
    }
  }
}

TEST_F(LinearGemv, TileEdges) {
  for (const int n : {1, 2, 15, 16, 17, 31, 32, 63, 64, 65, 127, 129, 255, 257}) {
    LinearCase c;
    c.items = {{DType::kQ4_K, n, true}};
    c.k = 256, c.m = 2, c.live = 1;
    LinearRun(c).check(kGemv);
    c.items = {{DType::kF16, n, false}};
    LinearRun(c).check(kGemv);
  }
}

// More activations than shared memory holds.
TEST_F(LinearGemv, ChunksOfK) {
  for (const DType type : {DType::kQ4_0, DType::kQ2_K, DType::kQ6_K, DType::kQ8_0, DType::kF16}) {
    LinearCase c;
    c.items = {{type, 34, false}};
    c.k = 9216 + 256, c.m = 8, c.live = 7;
    c.norm = NormKind::kRms;
    LinearRun(c).check(kGemv);
  }
}

// More tiles than blocks, so that a block takes several.
TEST_F(LinearGemv, SeveralTilesABlock) {
  LinearCase c;
  c.items = {{DType::kQ4_0, 1700, false}};
  c.k = 512, c.m = c.live = 1;
  LinearRun(c).check(kGemv);
  c.items = {{DType::kF32, 1700, false}};
  c.k = 256, c.m = 8, c.live = 5;  // two passes
  LinearRun(c).check(kGemv);
}

TEST_F(LinearGemv, ItemsOfSeveralTypes) {
  for (const auto& types : {std::array{DType::kQ4_K, DType::kQ4_K, DType::kQ6_K},
                            std::array{DType::kQ8_0, DType::kF32, DType::kQ8_0},
                            std::array{DType::kBF16, DType::kBF16, DType::kBF16}}) {
    LinearCase c;
    c.items = {{types[0], 70, true}, {types[1], 18, false}, {types[2], 5, true}};
    c.k = 512, c.m = 4, c.live = 3;
    c.norm = NormKind::kLayer;
    LinearRun(c).check(kGemv);
  }
}

TEST_F(LinearGemv, Epilogues) {
  for (const GluKind glu : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf}) {
    for (const DType type : {DType::kQ5_1, DType::kQ3_K, DType::kF16}) {
      LinearCase c;
      c.k = 256, c.m = 4, c.live = 3;
      c.x_scale = 4.0f;
      c.epilogue.glu = glu;
      c.epilogue.kind = Epilogue::kGlu;
      c.items = {{type, 21, true}, {type, 21, true}};
      LinearRun(c).check(kGemv);
      c.epilogue.kind = Epilogue::kAct;
      c.items = {{type, 21, true}};
      LinearRun(c).check(kGemv);
      c.epilogue.kind = Epilogue::kActMul;
      LinearRun(c).check(kGemv);
      c.epilogue.kind = Epilogue::kAct;
      c.epilogue.scale = 0.25f;
      c.epilogue.softcap = 3.0f;
      LinearRun(c).check(kGemv);
    }
  }
}

TEST_F(LinearGemv, ExtremeBlocks) {
  for (const DType type : kLinearTypes) {
    for (const Levels levels : {Levels::kAllOnes, Levels::kAllZeros, Levels::kSignBits}) {
      for (const Scales scales : {Scales::kLargest, Scales::kSubnormal}) {
        LinearCase c;
        c.items = {{type, 3, false}};
        c.k = 256, c.m = c.live = 1;
        c.levels = levels, c.scales = scales;
        LinearRun(c).check(kGemv);
      }
    }
  }
}

// Same bits whatever the order of lanes, warps and blocks, on either architecture.
TEST_F(LinearGemv, SeedsAndArchitectures) {
  for (const DType type : {DType::kQ4_K, DType::kF16}) {
    LinearCase c;
    c.items = {{type, 40, true}, {type, 40, false}};
    c.k = type == DType::kF16 ? 2048 : 6144, c.m = 8, c.live = 6;  // chunks; passes
    c.norm = NormKind::kLayer;
    c.epilogue.kind = Epilogue::kGlu;
    std::vector<std::vector<float>> first;
    for (const int architecture : {75, 80}) {
      emulated::Options options;
      options.architecture = architecture;
      reset(options);
      const LinearRun run(c);
      run.check(kGemv);
      for (uint64_t seed = 1; seed <= 10; ++seed) {
        emulated::set_seed(seed);
        const auto out = run.run(kGemv);
        if (first.empty()) first = out;
        ASSERT_EQ(out, first) << "seed " << seed << ", sm_" << architecture;
      }
    }
  }
}

TEST_F(LinearGemv, NothingAlive) {
  LinearCase c;
  c.items = {{DType::kQ4_0, 5, true}};
  c.k = 64, c.m = 2, c.live = 0;
  const auto out = LinearRun(c).run(kGemv);
  for (const float v : out[0]) EXPECT_EQ(v, -12345.0f);
}

// More than the m rows count as m, whether a pass has room for more or there are several passes.
TEST_F(LinearGemv, WrongNumbersOfLiveRows) {
  for (const DType type : {DType::kQ4_0, DType::kF32}) {
    for (const int m : {1, 3, 5}) {
      LinearCase c;
      c.items = {{type, 5, true}};
      c.k = 64, c.m = c.live = m;
      c.norm = NormKind::kRms;
      LinearRun(c).check_wrong_live_rows(kGemv);
    }
  }
}

// A NaN or an infinity among the activations reaches all outputs of its row, and no other row.
TEST_F(LinearGemv, NotANumberStaysVisible) {
  for (const DType type : {DType::kQ4_0, DType::kQ2_K, DType::kQ6_K, DType::kF32}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      LinearCase c;
      c.items = {{type, 5, false}};
      c.k = 256, c.m = c.live = 3;
      c.norm = NormKind::kRms;
      LinearRun run(c);
      run.set_x(1, bad);
      const auto out = run.run(kGemv)[0];
      for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 5 == 1) << i;
    }
  }
}

TEST_F(LinearGemv, NoRowsAreSuccess) {
  GemvArgs args;
  args.items.n = 1;
  args.items.item[0].w = make_matrix(DType::kQ4_0, 4, 32, 1, nullptr);
  EXPECT_EQ(linear_gemv(args, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // nothing ran
}

TEST_F(LinearGemv, RefusesWhatItCannotTake) {
  GemvArgs args;
  args.m = 1;
  EXPECT_EQ(linear_gemv(args, nullptr), cudaErrorInvalidValue);  // no items
  args.items.n = 1;
  args.items.item[0].w.type = DType::kF32;
  args.items.item[0].w.n = args.items.item[0].w.k = 4;
  args.m = kGemvRows + 1;
  EXPECT_EQ(linear_gemv(args, nullptr), cudaErrorInvalidValue);
  args.m = 1;
  args.epilogue.kind = Epilogue::kGlu;  // of one item
  EXPECT_EQ(linear_gemv(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace infer::cuda::test
