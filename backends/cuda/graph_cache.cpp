#include "backends/cuda/graph_cache.h"

#include <algorithm>
#include <vector>

namespace infer::cuda {
namespace {

/// A stream that is captured, until end() or, where an exception leaves the capture open, until
/// this goes: the stream could not be waited for any more.
class Capture {
 public:
  static Result<Capture> begin(const Stream& stream) {
    // Relaxed: other threads may allocate meanwhile, which would void a capture of another mode.
    INFER_TRY(check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed),
                    "capturing a step"));
    return Capture(stream.get());
  }
  Capture(Capture&& o) noexcept : stream_(std::exchange(o.stream_, nullptr)) {}
  ~Capture() {
    if (stream_ != nullptr) static_cast<void>(end());
  }
  Result<CudaGraph> end() {
    cudaGraph_t graph = nullptr;
    const cudaError_t error = cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
    CudaGraph owned(graph);
    INFER_TRY(check(error, "capturing a step"));
    return owned;
  }

 private:
  explicit Capture(cudaStream_t stream) : stream_(stream) {}
  cudaStream_t stream_;
};

/// Launches of kernels in a graph.
int count_kernels(cudaGraph_t graph) {
  size_t n = 0;
  if (cudaGraphGetNodes(graph, nullptr, &n) != cudaSuccess) return -1;
  std::vector<cudaGraphNode_t> nodes(n);
  if (cudaGraphGetNodes(graph, nodes.data(), &n) != cudaSuccess) return -1;
  return static_cast<int>(std::count_if(nodes.begin(), nodes.end(), [](cudaGraphNode_t node) {
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    return cudaGraphNodeGetType(node, &type) == cudaSuccess && type == cudaGraphNodeTypeKernel;
  }));
}

}  // namespace

Result<void> GraphCache::run(const Key& key, const Stream& stream, const Launches& launches) {
  if (const auto it = graphs_.find(key); it != graphs_.end()) {
    if (counters_ != nullptr) ++counters_->n_replayed;
    return check(cudaGraphLaunch(it->second.get(), stream.get()), "replaying a step");
  }
  if (counters_ != nullptr) ++counters_->n_eager;
  INFER_TRY(launches());
  if (!enabled_) return {};
  Result<CudaGraphExec> graph = capture(key, stream, launches);
  if (graph.ok()) {
    graphs_.emplace(key, *std::move(graph));
  } else {
    enabled_ = false;
    if (warn_) warn_(graph.error().message + ": steps are launched op by op");
  }
  return {};
}

Result<CudaGraphExec> GraphCache::capture(const Key& key, const Stream& stream,
                                          const Launches& launches) {
  INFER_ASSIGN(Capture open, Capture::begin(stream));
  const Result<void> launched = launches();
  Result<CudaGraph> graph = open.end();
  INFER_TRY(launched);
  if (!graph.ok()) return std::move(graph).error();
  if (counters_ != nullptr) counters_->kernels[key.m] = count_kernels(graph->get());
  cudaGraphExec_t instance = nullptr;
  INFER_TRY(
      check(cudaGraphInstantiate(&instance, graph->get(), 0), "instantiating a captured step"));
  return CudaGraphExec(instance);
}

}  // namespace infer::cuda
