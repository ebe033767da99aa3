#include "tests/cuda_on_cpu/fixture.h"

/// Capture and graphs: what is captured, what replay reads, and what CUDA refuses meanwhile.
namespace infer::cuda::test {

__global__ void step(const int* length, int* x) {
  for (int i = 0; i < *length; ++i) x[0] = x[0] * 3 + i;
}
__global__ void set_to(int* x, int value) { *x = value; }
__global__ void add_to(const int* from, int* x) { *x += *from; }

class Graphs : public Emulated {
 protected:
  void SetUp() override { fresh(1); }
  void fresh(uint64_t seed) {
    reset({.seed = seed});
    for (auto* s : {&a_, &b_})
      ASSERT_EQ(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking), cudaSuccess);
    for (auto* e : {&fork_, &join_}) ASSERT_EQ(cudaEventCreate(e), cudaSuccess);
  }
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) {
    ASSERT_EQ(cudaStreamBeginCapture(a_, mode), cudaSuccess);
  }
  void expect_end(cudaError_t error) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(a_, &graph), error);
    EXPECT_EQ(graph == nullptr, error != cudaSuccess);
    cudaGraphDestroy(graph);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
    EXPECT_EQ(cudaStreamIsCapturing(a_, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  }

  cudaStream_t a_ = nullptr, b_ = nullptr;
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
};

TEST_F(Graphs, ReplayReadsDeviceMemoryAsItIsThen) {
  DeviceArray<int> length(std::vector<int>{2}), x(std::vector<int>{1});
  begin();
  launch(step, 1, 1, 0, a_, length.data(), x.data());
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
  EXPECT_EQ(x.host()[0], 1) << "captured work does not run";
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, a_), cudaSuccess);
  cudaStreamSynchronize(a_);
  EXPECT_EQ(x.host()[0], 10);
  const int one = 1;
  cudaMemcpyAsync(length.data(), &one, sizeof(int), cudaMemcpyHostToDevice, a_);
  cudaGraphLaunch(exec, a_);
  cudaGraphExecDestroy(exec);  // the launch keeps what it needs
  cudaStreamSynchronize(a_);
  EXPECT_EQ(x.host()[0], 30);
}

TEST_F(Graphs, BranchesRunInAnyOrderBetweenForkAndJoin) {
  std::vector<int> results;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    fresh(seed);
    DeviceArray<int> x(std::vector<int>{0}), y(std::vector<int>{0}), racing(std::vector<int>{0});
    begin();
    launch(set_to, 1, 1, 0, a_, x.data(), 5);
    cudaEventRecord(fork_, a_);
    cudaStreamWaitEvent(b_, fork_, 0);
    launch(add_to, 1, 1, 0, b_, x.data(), y.data());
    launch(set_to, 1, 1, 0, b_, racing.data(), 1);
    cudaEventRecord(join_, b_);
    launch(set_to, 1, 1, 0, a_, racing.data(), 2);
    cudaStreamWaitEvent(a_, join_, 0);
    launch(add_to, 1, 1, 0, a_, y.data(), x.data());
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
    size_t n_node = 0;
    EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &n_node), cudaSuccess);
    EXPECT_EQ(n_node, 5u);
    cudaGraphNode_t first = nullptr;
    n_node = 1;
    EXPECT_EQ(cudaGraphGetNodes(graph, &first, &n_node), cudaSuccess);
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    EXPECT_EQ(cudaGraphNodeGetType(first, &type), cudaSuccess);
    EXPECT_EQ(type, cudaGraphNodeTypeKernel);
    cudaGraphExec_t exec = nullptr;
    cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphLaunch(exec, b_);
    cudaStreamSynchronize(b_);
    EXPECT_EQ(x.host()[0], 10);
    results.push_back(racing.host()[0]);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
  }
  EXPECT_THAT(results, testing::Contains(1));
  EXPECT_THAT(results, testing::Contains(2));
}

TEST_F(Graphs, CaptureRefusesToWait) {
  begin();
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaErrorStreamCaptureUnsupported);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin();
  EXPECT_EQ(cudaStreamQuery(a_), cudaErrorStreamCaptureUnsupported);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin();
  cudaEventRecord(fork_, a_);
  EXPECT_EQ(cudaEventQuery(fork_), cudaErrorCapturedEvent);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin();
  expect_end(cudaSuccess);
}

TEST_F(Graphs, CaptureRefusesAllocationAndSynchronousCopies) {
  DeviceArray<int> x(1);
  void* p = nullptr;
  int host = 0;
  begin();
  EXPECT_EQ(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(launch(set_to, 1, 1, 0, a_, x.data(), 1), cudaErrorStreamCaptureInvalidated);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin();
  EXPECT_EQ(cudaFree(x.data()), cudaErrorStreamCaptureUnsupported);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin(cudaStreamCaptureModeGlobal);
  EXPECT_EQ(cudaMemcpy(&host, x.data(), 4, cudaMemcpyDeviceToHost),
            cudaErrorStreamCaptureUnsupported);
  expect_end(cudaErrorStreamCaptureInvalidated);
  begin(cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(cudaMalloc(&p, 4), cudaSuccess) << "what the relaxed mode is for";
  expect_end(cudaSuccess);
}

TEST_F(Graphs, CaptureRefusesTheLegacyStream) {
  DeviceArray<int> x(1);
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
            cudaErrorStreamCaptureUnsupported);
  cudaStream_t blocking = nullptr;
  cudaStreamCreate(&blocking);
  ASSERT_EQ(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(launch(set_to, 1, 1, 0, nullptr, x.data(), 1), cudaErrorStreamCaptureImplicit);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
}

TEST_F(Graphs, CaptureRefusesLooseEnds) {
  DeviceArray<int> x(1);
  begin();
  cudaEventRecord(fork_, a_);
  cudaStreamWaitEvent(b_, fork_, 0);
  launch(set_to, 1, 1, 0, b_, x.data(), 1);
  expect_end(cudaErrorStreamCaptureUnjoined);
  begin();
  cudaEventRecord(fork_, a_);
  cudaStreamWaitEvent(b_, fork_, 0);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(b_, &graph), cudaErrorStreamCaptureUnmatched);
  expect_end(cudaErrorStreamCaptureInvalidated);
  launch(set_to, 1, 1, 0, b_, x.data(), 1);
  cudaEventRecord(join_, b_);
  begin();
  EXPECT_EQ(cudaStreamWaitEvent(a_, join_, 0), cudaErrorStreamCaptureIsolation);
  expect_end(cudaErrorStreamCaptureInvalidated);
}

}  // namespace infer::cuda::test
