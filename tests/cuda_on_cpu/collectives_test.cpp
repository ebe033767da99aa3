#include <cmath>
#include <limits>

#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/fixture.h"

/// Shuffles, votes, reductions, atomics and scalar instructions against their documented semantics.
namespace infer::cuda::test {

using Collectives = Emulated;

enum class Kind { kIndex, kUp, kDown, kXor };

__global__ void shuffled(Kind kind, int operand, int width, int* out) {
  const int v = 1000 + lane_id();
  int r = 0;
  if (kind == Kind::kIndex) r = shfl(v, operand, width);
  if (kind == Kind::kUp) r = shfl_up(v, static_cast<uint32_t>(operand), width);
  if (kind == Kind::kDown) r = shfl_down(v, static_cast<uint32_t>(operand), width);
  if (kind == Kind::kXor) r = shfl_xor(v, operand, width);
  out[lane_id()] = r;
}

// The pseudocode of shfl.sync in the PTX ISA, with the operands that __shfl_sync and its kin hand
// it.
int shfl_source(Kind kind, int lane, int b, int width) {
  const int segment_mask = (32 - width), clamp = kind == Kind::kUp ? 0 : 31;
  const int max_lane = (lane & segment_mask) | (clamp & ~segment_mask & 31);
  const int min_lane = lane & segment_mask;
  int j = 0;
  bool valid = false;
  switch (kind) {
    case Kind::kUp:
      j = lane - b;
      valid = j >= min_lane;
      break;
    case Kind::kDown:
      j = lane + b;
      valid = j <= max_lane;
      break;
    case Kind::kXor:
      j = lane ^ b;
      valid = j <= max_lane;
      break;
    case Kind::kIndex:
      j = min_lane | (b & ~segment_mask & 31);
      valid = j <= max_lane;
      break;
  }
  return valid ? j : lane;
}

TEST_F(Collectives, ShufflesFollowThePtxPseudocode) {
  DeviceArray<int> out(32);
  for (const Kind kind : {Kind::kIndex, Kind::kUp, Kind::kDown, Kind::kXor})
    for (const int width : {1, 2, 4, 8, 16, 32})
      for (const int operand : {0, 1, 2, 3, 5, 8, 15, 16, 17, 31}) {
        ASSERT_EQ(launch(shuffled, 1, 32, 0, nullptr, kind, operand, width, out.data()),
                  cudaSuccess);
        const auto host = out.host();
        for (int lane = 0; lane < 32; ++lane)
          ASSERT_EQ(host[static_cast<size_t>(lane)], 1000 + shfl_source(kind, lane, operand, width))
              << "kind " << static_cast<int>(kind) << " width " << width << " operand " << operand
              << " lane " << lane;
      }
}

__global__ void shuffle_types(double* d, float* f, unsigned long long* u) {
  d[lane_id()] = shfl(1.0 / (1 + lane_id()), 2);
  f[lane_id()] = shfl_down(static_cast<float>(lane_id()), 1);
  u[lane_id()] = shfl_xor(0x100000001ull * static_cast<unsigned>(lane_id()), 31);
}

TEST_F(Collectives, ShufflesMoveFourAndEightBytes) {
  DeviceArray<double> d(32);
  DeviceArray<float> f(32);
  DeviceArray<unsigned long long> u(32);
  launch(shuffle_types, 1, 32, 0, nullptr, d.data(), f.data(), u.data());
  EXPECT_EQ(d.host()[9], 1.0 / 3);
  EXPECT_EQ(f.host()[4], 5.0f);
  EXPECT_EQ(f.host()[31], 31.0f);
  EXPECT_EQ(u.host()[1], 0x100000001ull * 30);
}

__global__ void read_outside_mask(int* out) {
  if (lane_id() < 8) out[lane_id()] = shfl(lane_id(), 9, 32, 0xff);
}

TEST_F(Collectives, AShuffleFromALaneOutsideTheMaskIsReported) {
  DeviceArray<int> out(32);
  expect_report({"read_outside_mask", "reads lane 9", "0x000000ff"}, read_outside_mask, 1, 32, 0,
                out.data());
}

__global__ void votes(uint32_t* out) {
  const auto lane = static_cast<uint32_t>(lane_id());
  const uint32_t ballots = warp_ballot(lane % 3 == 0);
  const bool any_31 = warp_any(lane == 31), any_32 = warp_any(lane == 32);
  const bool all_32 = warp_all(lane < 32), all_31 = warp_all(lane < 31);
  uint32_t half = 0;
  if (lane >= 16) half = warp_ballot(lane != 20, 0xffff0000u) + warp_all(lane >= 16, 0xffff0000u);
  out[lane] = ballots;
  out[32 + lane] = any_31 | any_32 << 1 | all_32 << 2 | all_31 << 3;
  out[64 + lane] = half;
}

TEST_F(Collectives, Votes) {
  DeviceArray<uint32_t> out(96);
  launch(votes, 1, 32, 0, nullptr, out.data());
  const auto host = out.host();
  for (size_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(host[lane], 0x49249249u);
    EXPECT_EQ(host[32 + lane], 0b0101u);
    EXPECT_EQ(host[64 + lane], lane < 16 ? 0u : 0xffef0001u);
  }
}

__global__ void reduce_both_ways(const float* x, float* out) {
  const float v = x[lane_id()];
  float by_shuffles = v, max_by_shuffles = v;
  for (int d = 16; d > 0; d /= 2) {
    by_shuffles += shfl_xor(by_shuffles, d);
    max_by_shuffles = std::fmax(max_by_shuffles, shfl_xor(max_by_shuffles, d));
  }
  out[lane_id()] = by_shuffles - warp_sum(v);
  out[32 + lane_id()] = max_by_shuffles - warp_max(v);
  out[64 + lane_id()] = static_cast<float>(warp_sum(lane_id()) - warp_min(lane_id() - 7));
}

TEST_F(Collectives, ReductionsHaveTheBitsOfTheirButterfly) {
  std::vector<float> x(32);
  for (size_t i = 0; i < 32; ++i)
    x[i] = std::sin(static_cast<float>(i)) * std::exp2f(static_cast<float>(i % 9));
  DeviceArray<float> in(x), out(96);
  launch(reduce_both_ways, 1, 32, 0, nullptr, in.data(), out.data());
  const auto host = out.host();
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(host[i], 0.0f);
  for (size_t i = 64; i < 96; ++i) EXPECT_EQ(host[i], 496.0f + 7.0f);
}

__global__ void count(unsigned* sum, int* largest, int* smallest, unsigned long long* wide,
                      int* taken) {
  const int id = static_cast<int>(block_idx().x * 64 + thread_idx().x);
  atomic_add(sum, 2u);
  atomic_max(largest, id);
  atomic_min(smallest, -id);
  atomic_add(wide, 1ull << 33);
  atomic_cas(taken, 0, id + 1);
}

TEST_F(Collectives, IntegerAtomics) {
  reset({.n_threads = 2});
  DeviceArray<unsigned> sum(std::vector<unsigned>{0});
  DeviceArray<int> largest(std::vector<int>{-1}), smallest(std::vector<int>{1}),
      taken(std::vector<int>{0});
  DeviceArray<unsigned long long> wide(std::vector<unsigned long long>{0});
  launch(count, 40, 64, 0, nullptr, sum.data(), largest.data(), smallest.data(), wide.data(),
         taken.data());
  EXPECT_EQ(sum.host()[0], 2u * 40 * 64);
  EXPECT_EQ(largest.host()[0], 40 * 64 - 1);
  EXPECT_EQ(smallest.host()[0], -(40 * 64 - 1));
  EXPECT_EQ(wide.host()[0], (1ull << 33) * 40 * 64);
  EXPECT_GT(taken.host()[0], 0);
}

__global__ void scalar(const float* x, float* e, float* r, int* dot) {
  const int i = lane_id();
  e[i] = exp2_approx(x[i]);
  r[i] = rsqrt_approx(x[i]);
  dot[i] = dp4a(static_cast<int>(0x807fff01u), static_cast<int>(0x80800203u), i);
}

TEST_F(Collectives, ApproximationsStayWithinThePublishedErrorAndFlush) {
  std::vector<float> x(32, 1.0f);
  const float inf = std::numeric_limits<float>::infinity();
  const float values[] = {0, 0.5f, -1.25f, 100, -126, -126.5f, -inf, inf, 0x1p-127f, 3};
  std::copy(std::begin(values), std::end(values), x.begin());
  DeviceArray<float> in(x), e(32), r(32);
  DeviceArray<int> dot(32);
  launch(scalar, 1, 32, 0, nullptr, in.data(), e.data(), r.data(), dot.data());
  const auto exps = e.host(), roots = r.host();
  for (const size_t i : {0, 1, 2, 3, 4, 9}) {
    const double exact = std::exp2(static_cast<double>(x[i]));
    EXPECT_LE(std::fabs(exps[i] - exact), exact * 0x1p-22);
  }
  EXPECT_EQ(exps[5], 0.0f) << "a subnormal result";
  EXPECT_EQ(exps[6], 0.0f);
  EXPECT_EQ(exps[7], inf);
  EXPECT_EQ(roots[0], inf);
  EXPECT_EQ(roots[8], inf) << "a subnormal operand is a zero";
  EXPECT_NEAR(roots[9], 1 / std::sqrt(3.0), 0x1p-23);
  EXPECT_TRUE(std::isnan(roots[2]));
  const auto dots = dot.host();
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(dots[static_cast<size_t>(i)], 128 * 128 - 127 * 128 - 2 + 3 + i);
}

__global__ void misaligned(const float* x, float4* out) { out[lane_id()] = load<float4>(x + 1); }

TEST_F(Collectives, AMisalignedWideLoadIsReported) {
  DeviceArray<float> in(std::vector<float>(64, 1.0f));
  DeviceArray<float4> out(32);
  expect_report({"misaligned", "misaligned address", "collectives_test.cpp"}, misaligned, 1, 32, 0,
                in.data(), out.data());
}

__global__ void wide(const float* x, float4* out) {
  store(out + lane_id(), load_readonly<float4>(x + 4 * lane_id()));
}

TEST_F(Collectives, WideLoadsAndStores) {
  std::vector<float> x(128);
  for (size_t i = 0; i < 128; ++i) x[i] = static_cast<float>(i);
  DeviceArray<float> in(x);
  DeviceArray<float4> out(32);
  launch(wide, 1, 32, 0, nullptr, in.data(), out.data());
  EXPECT_EQ(out.host()[31].z, 126.0f);
}

}  // namespace infer::cuda::test
