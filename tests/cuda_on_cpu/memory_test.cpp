#include <cmath>

#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/fixture.h"
#include "tests/support/sanitizers.h"

/// Shared memory, asynchronous copies, device memory: what is undefined on a GPU shows here.
namespace infer::cuda::test {

using infer::test::kSanitized;
using Memory = Emulated;
using MemoryDeathTest = Emulated;

struct Floats {
  float x[64];
};

__global__ void read_unwritten(float* out) { out[lane_id()] = shared<Floats>().x[lane_id()]; }
__global__ void write_shared() { shared<Floats>().x[thread_idx().x] = 1.0f; }

TEST_F(Memory, SharedMemoryOfEveryBlockStartsAsNaN) {
  DeviceArray<float> out(32);
  launch(write_shared, 3, 64, sizeof(Floats), nullptr);
  launch(read_unwritten, 1, 32, sizeof(Floats), nullptr, out.data());
  for (const float v : out.host()) EXPECT_TRUE(std::isnan(v));
}

TEST_F(Memory, MoreSharedMemoryThanTheLaunchGaveIsReported) {
  expect_report({"write_shared", "256 bytes", "gave 128"}, write_shared, 1, 32, 128);
}

__global__ void nothing() {}

TEST_F(Memory, SharedMemoryIsLimitedByTheArchitecture) {
  const auto* kernel = reinterpret_cast<const void*>(nothing);
  const auto opt_in = [kernel](int bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  for (const auto& [architecture, limit] : {std::pair{75, 64}, {80, 163}, {86, 99}, {90, 227}}) {
    reset({.architecture = architecture});
    const auto bytes = static_cast<size_t>(limit) * 1024;
    EXPECT_EQ(launch(nothing, 1, 32, 48 * 1024 + 1, nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(opt_in(limit * 1024 + 1), cudaErrorInvalidValue);
    EXPECT_EQ(opt_in(limit * 1024), cudaSuccess);
    EXPECT_EQ(launch(nothing, 1, 32, bytes, nullptr), cudaSuccess);
    EXPECT_NE(launch(nothing, 1, 32, bytes + 1, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
}

__global__ void write_before_shared() { (&shared<Floats>().x[0])[-1] = 1.0f; }

TEST_F(Memory, AWriteJustOutsideSharedMemoryIsReported) {
  if (kSanitized) GTEST_SKIP() << "AddressSanitizer ends the program instead";
  expect_report({"write_before_shared", "outside its 256 bytes"}, write_before_shared, 1, 32,
                sizeof(Floats));
}

__global__ void write_at(float* x, long at) { x[at] = 1.0f; }

TEST_F(Memory, AWriteJustBesideAnAllocationIsReported) {
  if (kSanitized) GTEST_SKIP() << "AddressSanitizer ends the program instead";
  for (const long at : {-1, 65, 127}) {
    reset({});
    float* x = nullptr;
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&x), 65 * sizeof(float)), cudaSuccess);
    expect_report({"write_at", "beside an allocation of 260 bytes"}, write_at, 1, 1, 0, x, at);
  }
}

__global__ void read_at(const float* x, long at, float* out) { out[0] = x[at]; }
__global__ void read_shared_at(long at, float* out) { out[0] = shared<Floats>().x[at]; }

TEST_F(MemoryDeathTest, ReadsBeyondAllocationsNameTheKernel) {
  const char* message = kSanitized ? "AddressSanitizer" : "read_.*thread .*not the kernel's";
  DeviceArray<float> in(64), out(1);
  for (const long at : {64, -1025}) {
    EXPECT_DEATH(
        {
          launch(read_at, 1, 1, 0, nullptr, in.data(), at, out.data());
          cudaDeviceSynchronize();
        },
        message);
    EXPECT_DEATH(
        {
          launch(read_shared_at, 1, 1, sizeof(Floats), nullptr, at, out.data());
          cudaDeviceSynchronize();
        },
        message);
  }
}

TEST_F(MemoryDeathTest, TheHostCannotTouchDeviceMemory) {
  DeviceArray<float> x(64);
  launch(write_shared, 1, 64, sizeof(Floats), nullptr);
  cudaDeviceSynchronize();
  EXPECT_DEATH(*static_cast<volatile float*>(x.data()) = 1.0f,
               kSanitized ? "AddressSanitizer" : "the host touched device memory");
}

TEST_F(MemoryDeathTest, FreedMemoryIsGone) {
  float* x = nullptr;
  DeviceArray<float> out(1);
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&x), 1024), cudaSuccess);
  ASSERT_EQ(cudaFree(x), cudaSuccess);
  EXPECT_EQ(cudaFree(x), cudaErrorInvalidValue);
  EXPECT_DEATH(
      {
        launch(read_at, 1, 1, 0, nullptr, x, 0L, out.data());
        cudaDeviceSynchronize();
      },
      kSanitized ? "AddressSanitizer" : "read_at");
}

__global__ void read_four(const float* x, float4* out) {
  out[0] = *reinterpret_cast<const float4*>(x);
}

TEST_F(MemoryDeathTest, AMisalignedDereferenceNamesTheKernel) {
  DeviceArray<float> in(64);
  DeviceArray<float4> out(1);
  EXPECT_DEATH(
      {
        launch(read_four, 1, 1, 0, nullptr, in.data() + 1, out.data());
        cudaDeviceSynchronize();
      },
      kSanitized ? "misaligned address" : "read_four.*misaligned");
}

TEST_F(Memory, DeviceMemoryStartsAsNaN) {
  DeviceArray<float> x(100);
  for (const float v : x.host()) EXPECT_TRUE(std::isnan(v));
}

struct Ints {
  int x[128];
};

// Copies 32 ints in each of two groups; what is read after `n_pending` groups may be under way.
template <int kPending, bool kWait>
__global__ void copy_two_groups(const int* in, int* out) {
  auto& s = shared<Ints>();
  for (int group = 0; group < 2; ++group) {
    cp_async<4>(&s.x[32 * group + lane_id()], in + 32 * group + lane_id());
    cp_async_commit();
  }
  if (kWait) cp_async_wait<kPending>();
  sync_warp();
  out[lane_id()] = s.x[lane_id()];
  out[32 + lane_id()] = s.x[32 + lane_id()];
}

TEST_F(Memory, AsyncCopiesArriveWhenWaitedForAndNotBefore) {
  std::vector<int> x(64);
  for (int i = 0; i < 64; ++i) x[static_cast<size_t>(i)] = i;
  std::vector<int> none(64, -1), first = x;
  std::fill(first.begin() + 32, first.end(), -1);
  DeviceArray<int> in(x), out(64);
  const auto run = [&](auto kernel) {
    EXPECT_EQ(launch(kernel, 1, 32, sizeof(Ints), nullptr, in.data(), out.data()), cudaSuccess);
    return out.host();
  };
  EXPECT_EQ(run(copy_two_groups<0, true>), x);
  EXPECT_EQ(run(copy_two_groups<1, true>), first);
  EXPECT_EQ(run(copy_two_groups<2, true>), none);
  EXPECT_EQ(run(copy_two_groups<0, false>), none);
  reset({.architecture = 75});  // copies at once
  DeviceArray<int> in_75(x), out_75(64);
  launch(copy_two_groups<0, false>, 1, 32, sizeof(Ints), nullptr, in_75.data(), out_75.data());
  EXPECT_EQ(out_75.host(), x);
}

// The copies of a lane are its own to wait for: others need a barrier besides.
__global__ void read_a_neighbour(const int* in, int* out, bool with_barrier) {
  auto& s = shared<Ints>();
  cp_async<4>(&s.x[lane_id()], in + lane_id());
  cp_async_commit();
  cp_async_wait<0>();
  if (with_barrier) sync_warp();
  out[lane_id()] = s.x[31 - lane_id()];
}

TEST_F(Memory, AWaitWithoutABarrierShows) {
  DeviceArray<int> in(std::vector<int>(32, 7)), out(32);
  launch(read_a_neighbour, 1, 32, sizeof(Ints), nullptr, in.data(), out.data(), true);
  EXPECT_THAT(out.host(), testing::Each(7));
  launch(read_a_neighbour, 1, 32, sizeof(Ints), nullptr, in.data(), out.data(), false);
  EXPECT_THAT(out.host(), testing::Contains(-1));
}

__global__ void copy_16(const int* in, int* out, int source_bytes) {
  auto& s = shared<Ints>();
  cp_async<16>(&s.x[4 * lane_id()], in + 4 * lane_id(), source_bytes);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[4 * lane_id() + i] = s.x[4 * lane_id() + i];
}

TEST_F(Memory, AsyncCopiesFillWithZeros) {
  for (const int architecture : {75, 80}) {
    reset({.architecture = architecture});
    DeviceArray<int> in(std::vector<int>(128, 9)), out(128);
    for (const int source_bytes : {0, 4, 8, 16}) {
      launch(copy_16, 1, 32, sizeof(Ints), nullptr, in.data(), out.data(), source_bytes);
      const auto host = out.host();
      for (int i = 0; i < 128; ++i)
        ASSERT_EQ(host[static_cast<size_t>(i)], i % 4 * 4 < source_bytes ? 9 : 0);
    }
  }
}

__global__ void copy_misaligned(const int* in) {
  cp_async<16>(&shared<Ints>().x[4 * lane_id()], in + 4 * lane_id() + 1);
}
__global__ void copy_to_global(int* x) { cp_async<4>(x, x + 32); }
__global__ void copy_from_shared() { cp_async<4>(&shared<Ints>().x[0], &shared<Ints>().x[1]); }

TEST_F(Memory, MisusedAsyncCopiesAreReported) {
  for (const int architecture : {75, 80}) {
    const auto fresh = [architecture] { reset({.architecture = architecture}); };
    fresh();
    DeviceArray<int> x(256);
    expect_report({"copy_misaligned", "misaligned"}, copy_misaligned, 1, 32, sizeof(Ints),
                  x.data());
    fresh();
    DeviceArray<int> y(256);
    expect_report({"copy_to_global", "outside the block's shared memory"}, copy_to_global, 1, 32,
                  sizeof(Ints), y.data());
    fresh();
    expect_report({"copy_from_shared", "its source is global"}, copy_from_shared, 1, 32,
                  sizeof(Ints));
  }
}

TEST_F(Memory, AllocationsEndAtTheLimitOfTheDevice) {
  reset({.n_device = 2, .device_bytes = 1 << 20});
  void *a = nullptr, *b = nullptr, *c = nullptr;
  EXPECT_EQ(cudaMalloc(&a, 768 << 10), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 512 << 10), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "it is no sticky error";
  size_t free_bytes = 0, total_bytes = 0;
  EXPECT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  EXPECT_EQ(free_bytes, 256u << 10);
  EXPECT_EQ(total_bytes, 1u << 20);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&c, 512 << 10), cudaSuccess) << "the other device has memory of its own";
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  EXPECT_EQ(emulated::n_allocation(), 2u);
  EXPECT_EQ(cudaFree(a), cudaSuccess);
  EXPECT_EQ(cudaFree(c), cudaSuccess);
  EXPECT_EQ(emulated::n_allocation(), 0u);
}

TEST_F(Memory, CopiesAreChecked) {
  DeviceArray<float> x(16);
  std::vector<float> host(64);
  EXPECT_EQ(cudaMemcpy(x.data(), host.data(), 65, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(x.data() + 8, host.data(), 64, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), x.data(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(host.data(), 0, 4), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(x.data(), 0, 64), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(host.data(), x.data(), 64, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(host[15], 0.0f);
}

}  // namespace infer::cuda::test
