#include "kernels/cuda/act_q8.cuh"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cuda/linear.h"
#include "tests/cuda_on_cpu/linear_case.h"

namespace infer::cuda::test {
namespace {

struct RoundParams {
  const float* x;
  uint32_t* q;
  float2* ds;
  int n;
};

/// A warp rounds as many values as its lanes hold, the next warp the next ones.
template <int kCount>
__global__ void round_groups(const __grid_constant__ RoundParams p) {
  const int at = static_cast<int>(block_idx().x * block_dim().x + thread_idx().x) * kCount;
  float v[kCount] = {};
  for (int i = 0; i < kCount && at < p.n; ++i) v[i] = p.x[at + i];
  const RoundedGroup<kCount> r = round_act_group(v);
  if (at >= p.n) return;
  for (int i = 0; i < kCount / 4; ++i) p.q[at / 4 + i] = r.q[i];
  if (at % kActGroup == 0) p.ds[at / kActGroup] = {r.d, r.s};
}

/// Levels and scales of groups as the device has them.
template <int kCount>
std::vector<kern::ActBlock> rounded(const std::vector<float>& x) {
  const DeviceArray<float> in(x);
  const DeviceArray<uint32_t> q(x.size() / 4);
  const DeviceArray<float2> ds(x.size() / 32);
  const int n = static_cast<int>(x.size()), lanes = n / kCount;
  const RoundParams p = {in.data(), q.data(), ds.data(), n};
  EXPECT_EQ(launch(round_groups<kCount>, (lanes + 63) / 64, 64, 0, nullptr, p), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto levels = q.host();
  const auto scales = ds.host();
  std::vector<kern::ActBlock> blocks(x.size() / 32);
  for (size_t b = 0; b < blocks.size(); ++b) {
    std::memcpy(blocks[b].q, &levels[8 * b], 32);
    blocks[b].d = scales[b].x, blocks[b].s = scales[b].y;
  }
  return blocks;
}

bool same(float a, float b) { return float_bits(a) == float_bits(b); }

class ActQ8Rounding : public Emulated {};

// The CPU's rounding, bit for bit, however many values a lane holds.
TEST_F(ActQ8Rounding, IsTheCpus) {
  std::mt19937_64 rng(infer::test::seed_of_test());
  std::vector<float> x = random_floats(rng, 32 * 67);
  for (size_t i = 0; i < 32; ++i) {
    x[i] = static_cast<float>(i) - 15.5f;  // ties: 127 is not reached by a half
    x[32 + i] = 0.0f;
    x[64 + i] = i % 2 == 0 ? 0x1p-101f : 0.0f;  // below kActTiny
    x[96 + i] = 127.0f * (i == 0 ? 1.0f : 0.0f) + (i == 0 ? 0.0f : static_cast<float>(i) + 0.5f);
    x[128 + i] *= 1e30f;
    x[160 + i] *= 1e-28f;
    x[192 + i] = -3.0f;
  }
  std::vector<kern::ActBlock> expected(x.size() / 32);
  for (size_t b = 0; b < expected.size(); ++b)
    kern::generic::prepare_q8(&x[32 * b], 32, reinterpret_cast<std::byte*>(&expected[b]));
  for (const auto& blocks : {rounded<4>(x), rounded<8>(x), rounded<16>(x)}) {
    for (size_t b = 0; b < expected.size(); ++b) {
      EXPECT_EQ(std::memcmp(blocks[b].q, expected[b].q, 32), 0) << "group " << b;
      EXPECT_TRUE(same(blocks[b].d, expected[b].d)) << "group " << b;
      EXPECT_TRUE(same(blocks[b].s, expected[b].s)) << "group " << b;
    }
  }
}

TEST_F(ActQ8Rounding, NotANumberMakesTheGroupOne) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(96, 1.0f);
    x[32 + 21] = bad;
    for (const auto& blocks : {rounded<4>(x), rounded<16>(x)}) {
      for (size_t b = 0; b < 3; ++b) {
        EXPECT_EQ(std::isnan(blocks[b].d), b == 1);
        EXPECT_EQ(std::isnan(blocks[b].s), b == 1);
        EXPECT_EQ(blocks[b].q[0], b == 1 ? 0 : 127);
      }
    }
  }
}

}  // namespace
}  // namespace infer::cuda::test
