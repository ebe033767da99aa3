#include "tests/cuda_on_cpu/fixture.h"

/// Streams and events: work runs late and in any order that CUDA allows, so that what nothing
/// orders shows.
namespace infer::cuda::test {

using Streams = Emulated;

__global__ void set_value(int* x, int value) { *x = value; }
__global__ void add_value(int* x, int value) { *x += value; }
__global__ void copy_value(const int* from, int* to) { *to = *from; }

int read(const int* device) {
  int value = 0;
  EXPECT_EQ(cudaMemcpy(&value, device, sizeof(int), cudaMemcpyDeviceToHost), cudaSuccess);
  return value;
}

struct TwoStreams {
  TwoStreams() {
    for (auto* s : {&a, &b})
      EXPECT_EQ(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking), cudaSuccess);
  }
  cudaStream_t a = nullptr, b = nullptr;
};

TEST_F(Streams, NothingRunsBeforeSomebodyWaits) {
  int* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(int)), cudaSuccess);
  TwoStreams s;
  DeviceArray<int> x(std::vector<int>{0});
  *pinned = 5;
  cudaMemcpyAsync(x.data(), pinned, sizeof(int), cudaMemcpyHostToDevice, s.a);
  *pinned = 6;  // too early: the copy has not read it
  cudaStreamSynchronize(s.a);
  EXPECT_EQ(read(x.data()), 6);
  int pageable = 7;
  cudaMemcpyAsync(x.data(), &pageable, sizeof(int), cudaMemcpyHostToDevice, s.a);
  pageable = 8;  // staged by the call already
  cudaStreamSynchronize(s.a);
  EXPECT_EQ(read(x.data()), 7);
  cudaFreeHost(pinned);
}

TEST_F(Streams, OneStreamKeepsItsOrder) {
  TwoStreams s;
  DeviceArray<int> x(std::vector<int>{0});
  for (int i = 1; i <= 20; ++i) {
    launch(set_value, 1, 1, 0, s.a, x.data(), i);
    launch(add_value, 1, 1, 0, s.a, x.data(), 1);
  }
  cudaStreamSynchronize(s.a);
  EXPECT_EQ(read(x.data()), 21);
}

// Stream a writes, stream b reads; returns what b saw.
int hand_over(uint64_t seed, bool with_event) {
  reset({.seed = seed});
  TwoStreams s;
  cudaEvent_t written = nullptr;
  EXPECT_EQ(cudaEventCreateWithFlags(&written, cudaEventDisableTiming), cudaSuccess);
  DeviceArray<int> x(std::vector<int>{1}), y(std::vector<int>{0});
  launch(set_value, 1, 1, 0, s.a, x.data(), 2);
  EXPECT_EQ(cudaEventRecord(written, s.a), cudaSuccess);
  if (with_event) cudaStreamWaitEvent(s.b, written, 0);
  launch(copy_value, 1, 1, 0, s.b, x.data(), y.data());
  launch(add_value, 1, 1, 0, s.a, x.data(), 100);  // may overtake the read
  EXPECT_EQ(cudaEventDestroy(written), cudaSuccess) << "a handle is not needed to wait";
  cudaStreamSynchronize(s.b);
  return read(y.data());
}

TEST_F(Streams, AMissingEventShows) {
  std::vector<int> seen;
  for (uint64_t seed = 1; seed <= 10; ++seed) seen.push_back(hand_over(seed, false));
  EXPECT_THAT(seen, testing::Contains(1)) << "the reader came first";
  EXPECT_THAT(seen, testing::Contains(testing::Ne(1)));
  seen.clear();
  for (uint64_t seed = 1; seed <= 20; ++seed) seen.push_back(hand_over(seed, true));
  EXPECT_THAT(seen, testing::Each(testing::AnyOf(2, 102)));
  EXPECT_THAT(seen, testing::Contains(102)) << "the writer's next value overtook it";
}

TEST_F(Streams, TheLegacyStreamWaitsForBlockingStreamsAndTheyForIt) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed});
    cudaStream_t blocking = nullptr;
    ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
    DeviceArray<int> x(std::vector<int>{0});
    launch(set_value, 1, 1, 0, blocking, x.data(), 1);
    launch(add_value, 1, 1, 0, nullptr, x.data(), 10);
    launch(set_value, 1, 1, 0, blocking, x.data(), 2);
    launch(add_value, 1, 1, 0, nullptr, x.data(), 5);
    ASSERT_EQ(read(x.data()), 7);
  }
}

TEST_F(Streams, EventsTellWhatIsDone) {
  TwoStreams s;
  cudaEvent_t begin = nullptr, end = nullptr, unused = nullptr;
  for (auto* e : {&begin, &end, &unused}) ASSERT_EQ(cudaEventCreate(e), cudaSuccess);
  DeviceArray<int> x(std::vector<int>{0});
  EXPECT_EQ(cudaEventQuery(unused), cudaSuccess) << "never recorded: nothing to wait for";
  cudaEventRecord(begin, s.a);
  for (int i = 0; i < 10; ++i) launch(add_value, 1, 1, 0, s.a, x.data(), 1);
  cudaEventRecord(end, s.a);
  float ms = -1;
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
  int n_poll = 0;
  for (; cudaEventQuery(end) == cudaErrorNotReady; ++n_poll) ASSERT_LT(n_poll, 1000);
  EXPECT_GT(n_poll, 0);
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaSuccess);
  EXPECT_GE(ms, 0);
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, unused), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(end), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(end), cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, WaitingForAnEventMeansItsRecordAtThatTime) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    reset({.seed = seed});
    TwoStreams s;
    cudaEvent_t event = nullptr;
    cudaEventCreate(&event);
    DeviceArray<int> x(std::vector<int>{0}), y(std::vector<int>{0});
    launch(set_value, 1, 1, 0, s.a, x.data(), 1);
    cudaEventRecord(event, s.a);
    cudaStreamWaitEvent(s.b, event, 0);
    launch(copy_value, 1, 1, 0, s.b, y.data(), x.data());  // x = 0, after x = 1
    cudaEventRecord(event, s.b);                           // again, elsewhere
    cudaEventSynchronize(event);
    ASSERT_EQ(read(x.data()), 0);
  }
}

TEST_F(Streams, MemoryOfAStreamIsFreedInItsOrder) {
  TwoStreams s;
  int* x = nullptr;
  DeviceArray<int> y(1);
  const size_t before = emulated::n_allocation();
  ASSERT_EQ(cudaMallocAsync(reinterpret_cast<void**>(&x), sizeof(int), s.a), cudaSuccess);
  launch(set_value, 1, 1, 0, s.a, x, 3);
  launch(copy_value, 1, 1, 0, s.a, x, y.data());
  ASSERT_EQ(cudaFreeAsync(x, s.a), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(s.a), cudaSuccess);
  EXPECT_EQ(read(y.data()), 3);
  EXPECT_EQ(emulated::n_allocation(), before);
}

TEST_F(Streams, HandlesThatAreNoneAreRefused) {
  int no_stream = 0;
  auto* handle = reinterpret_cast<cudaStream_t>(&no_stream);
  EXPECT_EQ(cudaStreamSynchronize(handle), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(launch(set_value, 1, 1, 0, handle, nullptr, 0), cudaErrorInvalidResourceHandle);
  TwoStreams s;
  EXPECT_EQ(cudaStreamDestroy(s.a), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(s.a), cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, HostFunctionsRunInTheirStreamWithoutDeviceMemory) {
  TwoStreams s;
  int calls = 0;
  cudaLaunchHostFunc(
      s.a, [](void* data) { ++*static_cast<int*>(data); }, &calls);
  EXPECT_EQ(calls, 0);
  cudaStreamSynchronize(s.a);
  EXPECT_EQ(calls, 1);
}

TEST_F(Streams, PropertiesTellTheArchitecture) {
  for (const int architecture : {75, 80, 89, 120}) {
    reset({.architecture = architecture});
    cudaDeviceProp prop = {};
    ASSERT_EQ(cudaGetDeviceProperties(&prop, 0), cudaSuccess);
    EXPECT_EQ(10 * prop.major + prop.minor, architecture);
    int minor = -1;
    EXPECT_EQ(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), cudaSuccess);
    EXPECT_EQ(minor, architecture % 10);
  }
  reset({.n_device = 0});
  int count = -1;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_STREQ(cudaGetErrorString(cudaErrorNoDevice), "no CUDA-capable device is detected");
  reset({.has_driver = false});
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
}

}  // namespace infer::cuda::test
