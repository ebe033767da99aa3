#include <set>

#include "tests/cuda_on_cpu/fixture.h"

/// Kernels are in no anonymous namespace so that reports can name them.
/// Blocks, lanes, barriers: what runs, in which orders, and which misuse is reported instead of
/// hanging.
namespace infer::cuda::test {

using Execution = Emulated;

__global__ void write_ids(int* out) {
  const auto at = (block_idx().y * grid_dim().x + block_idx().x) * block_dim().x * block_dim().y +
                  thread_idx().y * block_dim().x + thread_idx().x;
  out[at] = static_cast<int>(at);
}

TEST_F(Execution, EveryThreadOfEveryBlockRunsOnce) {
  for (int n_thread : {1, 3}) {
    reset({.n_threads = n_thread});
    DeviceArray<int> out(5 * 3 * 64 * 2);
    ASSERT_EQ(launch(write_ids, dim3(5, 3), dim3(64, 2), 0, nullptr, out.data()), cudaSuccess);
    const auto host = out.host();
    for (size_t i = 0; i < host.size(); ++i) ASSERT_EQ(host[i], static_cast<int>(i));
  }
}

struct Tile {
  float x[256];
};

// out[i] = the sum of the block's x, by a tree in shared memory.
__global__ void block_sum(const float* x, float* out) {
  Tile& tile = shared<Tile>();
  const auto i = thread_idx().x;
  tile.x[i] = x[block_idx().x * 256 + i];
  sync_threads();
  for (unsigned d = 128; d > 0; d /= 2) {
    if (i < d) tile.x[i] += tile.x[i + d];
    sync_threads();
  }
  if (i == 0) out[block_idx().x] = tile.x[0];
}

TEST_F(Execution, BarriersMakeTheSameBitsForEverySeed) {
  std::vector<float> x(256 * 7);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 1.0f / static_cast<float>(i + 1);
  std::vector<float> first;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed, .n_threads = 2});
    DeviceArray<float> in(x), out(7);
    ASSERT_EQ(launch(block_sum, 7, 256, sizeof(Tile), nullptr, in.data(), out.data()), cudaSuccess);
    if (first.empty()) first = out.host();
    ASSERT_EQ(out.host(), first) << "seed " << seed;
  }
}

// The same without the barrier after the load.
__global__ void block_sum_racing(const float* x, float* out) {
  Tile& tile = shared<Tile>();
  const auto i = thread_idx().x;
  tile.x[i] = x[i];
  for (unsigned d = 128; d > 0; d /= 2) {
    if (i < d) tile.x[i] += tile.x[i + d];
    sync_threads();
  }
  if (i == 0) out[0] = tile.x[0];
}

TEST_F(Execution, AMissingBarrierShowsAsNaN) {
  int n_wrong = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed});
    DeviceArray<float> in(std::vector<float>(256, 1.0f)), out(1);
    launch(block_sum_racing, 1, 256, sizeof(Tile), nullptr, in.data(), out.data());
    n_wrong += !(out.host()[0] == 256.0f);
  }
  EXPECT_EQ(n_wrong, 10);
}

struct Exchange {
  int x[32];
};

__global__ void rotate(int* out, bool with_barrier) {
  auto& e = shared<Exchange>();
  e.x[lane_id()] = 100 + lane_id();
  if (with_barrier) sync_warp();
  out[lane_id()] = e.x[(lane_id() + 1) % 32];
}

TEST_F(Execution, AMissingWarpBarrierShows) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed});
    DeviceArray<int> out(32);
    launch(rotate, 1, 32, sizeof(Exchange), nullptr, out.data(), true);
    for (int i = 0; i < 32; ++i) ASSERT_EQ(out.host()[i], 100 + (i + 1) % 32);
    launch(rotate, 1, 32, sizeof(Exchange), nullptr, out.data(), false);
    EXPECT_THAT(out.host(), testing::Contains(-1)) << "seed " << seed;  // bytes of a NaN
  }
}

__global__ void first_to_come(int* counter, int* order) {
  order[atomic_add(counter, 1)] = static_cast<int>(block_idx().x * 64 + thread_idx().x);
}

TEST_F(Execution, SeedsChangeTheOrderOfBlocksWarpsAndLanes) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed : {1, 2, 3, 1}) {
    reset({.seed = seed});
    DeviceArray<int> counter(std::vector<int>{0}), order(128);
    launch(first_to_come, 2, 64, 0, nullptr, counter.data(), order.data());
    const auto host = order.host();
    EXPECT_EQ(std::set<int>(host.begin(), host.end()).size(), 128u);
    orders.insert(host);
  }
  EXPECT_EQ(orders.size(), 3u) << "the same seed gives the same order";
}

__global__ void half_at_barrier() {
  if (thread_idx().x < 32) sync_threads();
}

TEST_F(Execution, AnEndedThreadAtABarrierIsReported) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    reset({.seed = seed});
    expect_report({"half_at_barrier", "execution_test.cpp:", "block (0,0,0)", "sync_threads"},
                  half_at_barrier, 1, 64, 0);
  }
}

__global__ void two_barriers() {
  if (thread_idx().x % 2 == 0)
    sync_threads();
  else
    sync_threads();
}

TEST_F(Execution, BarriersAreToldApartByTheirPlace) {
  expect_report({"two_barriers", "different sync_threads"}, two_barriers, 1, 64, 0);
}

__global__ void divergent_shuffle(int* out) {
  if (lane_id() < 7)
    out[lane_id()] = shfl_xor(lane_id(), 1);
  else
    out[lane_id()] = shfl_xor(lane_id(), 2);
}

TEST_F(Execution, DivergentCollectivesOfAFullMaskAreReported) {
  DeviceArray<int> out(32);
  expect_report({"divergent_shuffle", "never come", "0x0000007f", "0xffffff80"}, divergent_shuffle,
                1, 32, 0, out.data());
}

__global__ void ended_in_mask() {
  if (lane_id() == 5) return;
  sync_warp();
}

TEST_F(Execution, AnEndedLaneInAMaskIsReported) {
  expect_report({"ended_in_mask", "lanes 0x00000020 have ended"}, ended_in_mask, 1, 32, 0);
}

__global__ void foreign_mask() { sync_warp(0xff); }

TEST_F(Execution, ALaneOutsideItsOwnMaskIsReported) {
  expect_report({"foreign_mask", "not in its own mask"}, foreign_mask, 1, 32, 0);
}

// Lanes of disjoint masks meet apart, and all of them after that.
__global__ void halves(int* out) {
  int v = lane_id();
  if (lane_id() < 16)
    v = shfl(v, 3, 32, 0xffff);
  else
    for (int i = 0; i < 3; ++i) v = shfl(v, 20, 32, 0xffff0000u) + 1;
  out[lane_id()] = shfl_xor(v, 16);
}

TEST_F(Execution, DisjointMasksDoNotDisturbEachOther) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed});
    DeviceArray<int> out(32);
    launch(halves, 1, 32, 0, nullptr, out.data());
    const auto host = out.host();
    for (int i = 0; i < 32; ++i) ASSERT_EQ(host[i], i < 16 ? 23 : 3);
  }
}

TEST_F(Execution, AFailedKernelStaysAnErrorAndTheDeviceDoesNothingMore) {
  DeviceArray<int> out(std::vector<int>(32, 1));
  expect_report({}, foreign_mask, 1, 32, 0);
  EXPECT_EQ(launch(write_ids, 1, 32, 0, nullptr, out.data()), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  reset({});
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(Execution, ConfigurationsThatNoDeviceTakesAreRefused) {
  EXPECT_EQ(launch(foreign_mask, 1, 1025, 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(foreign_mask, 0, 32, 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(foreign_mask, dim3(1, 65536), 32, 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(foreign_mask, 1, dim3(1, 1, 65), 0, nullptr), cudaErrorInvalidConfiguration);
}

struct Params {
  const int* in;
  int* out;
  int n, scale;
};
__global__ void scaled(const __grid_constant__ Params p) {
  const int i = static_cast<int>(thread_idx().x);
  if (i < p.n) p.out[i] = p.in[i] * p.scale;
}

TEST_F(Execution, ParametersAreCopiedAtTheLaunch) {
  DeviceArray<int> in(std::vector<int>{1, 2, 3}), out(3);
  Params p{in.data(), out.data(), 3, 10};
  launch(scaled, 1, 32, 0, nullptr, p);
  p.scale = 100;  // nothing has run yet
  EXPECT_THAT(out.host(), testing::ElementsAre(10, 20, 30));
}

__global__ void recurse_forever(int* out) {
  volatile char room[100 * 1024];
  for (size_t i = 0; i < sizeof(room); i += 512) room[sizeof(room) - 1 - i] = 1;
  out[0] = room[0];
}

TEST_F(Execution, ExecutionDeathTest_AnOverflowedStackNamesTheKernel) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer reports it in its own words";
#endif
  EXPECT_DEATH(
      {
        DeviceArray<int> out(1);
        launch(recurse_forever, 1, 32, 0, nullptr, out.data());
        cudaDeviceSynchronize();
      },
      "recurse_forever.*overflowed its stack");
}

}  // namespace infer::cuda::test
