#include "backends/cuda/graph_cache.h"

#include <algorithm>
#include <vector>

namespace infer::cuda {
namespace {

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

GraphCache::~GraphCache() {
  for (const auto& [key, graph] : graphs_) static_cast<void>(cudaGraphExecDestroy(graph));
}

Result<void> GraphCache::run(const Key& key, const Stream& stream, const Launches& launches) {
  if (const auto it = graphs_.find(key); it != graphs_.end()) {
    if (counters_ != nullptr) ++counters_->n_replayed;
    return check(cudaGraphLaunch(it->second, stream.get()), "replaying a step");
  }
  if (counters_ != nullptr) ++counters_->n_eager;
  INFER_TRY(launches());
  if (!enabled_) return {};
  Result<cudaGraphExec_t> graph = capture(key, stream, launches);
  if (graph.ok()) {
    graphs_.emplace(key, *graph);
  } else {
    enabled_ = false;
    if (warn_) warn_(graph.error().message + ": steps are launched op by op");
  }
  return {};
}

Result<cudaGraphExec_t> GraphCache::capture(const Key& key, const Stream& stream,
                                            const Launches& launches) {
  // Relaxed: other threads may allocate meanwhile, which would void a capture of another mode.
  INFER_TRY(check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed),
                  "capturing a step"));
  const Result<void> launched = launches();
  cudaGraph_t graph = nullptr;
  const Result<void> ended = check(cudaStreamEndCapture(stream.get(), &graph), "capturing a step");
  if (!launched.ok() && graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  INFER_TRY(launched);
  INFER_TRY(ended);
  if (counters_ != nullptr) counters_->kernels[key.m] = count_kernels(graph);
  cudaGraphExec_t instance = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&instance, graph, 0);
  static_cast<void>(cudaGraphDestroy(graph));
  INFER_TRY(check(error, "instantiating a captured step"));
  return instance;
}

}  // namespace infer::cuda
