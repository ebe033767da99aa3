#include <algorithm>
#include <memory>
#include <utility>

#include "tests/cuda_on_cpu/machine.h"

/// Capture of streams into graphs, and graphs, of the runtime API.
namespace infer::cuda::emulated {

namespace {

// Captured work that the stream which began the capture does not wait for at its end.
bool has_unjoined(const Capture& capture) {
  std::vector<bool> joined(capture.nodes.size());
  std::vector<size_t> stack = capture.origin->tips;
  while (!stack.empty()) {
    const size_t node = stack.back();
    stack.pop_back();
    if (joined[node]) continue;
    joined[node] = true;
    const auto& after = capture.nodes[node].after;
    stack.insert(stack.end(), after.begin(), after.end());
  }
  return std::find(joined.begin(), joined.end(), false) != joined.end();
}

void leave_capture(Machine& m, const std::shared_ptr<Capture>& capture) {
  for (const auto& stream : m.streams) {
    if (stream->capture != capture) continue;
    stream->capture = nullptr;
    stream->tips.clear();
  }
  m.captures.erase(capture);
}

cudaError_t begin_capture(Machine& m, cudaStream_t handle, cudaStreamCaptureMode mode) {
  const auto stream = m.find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream == m.legacy[static_cast<size_t>(stream->device)])
    return cudaErrorStreamCaptureUnsupported;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream;
  stream->capture = capture;
  stream->tips.clear();
  m.captures.insert(std::move(capture));
  return cudaSuccess;
}

cudaError_t end_capture(Machine& m, cudaStream_t handle, cudaGraph_t* out) {
  const auto stream = m.find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (out == nullptr) return cudaErrorInvalidValue;
  *out = nullptr;
  const auto capture = stream->capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != stream) {
    capture->invalid = true;
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  const bool unjoined = has_unjoined(*capture);
  leave_capture(m, capture);
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (unjoined) return cudaErrorStreamCaptureUnjoined;
  *out = reinterpret_cast<cudaGraph_t>(new Graph{std::move(capture->nodes)});
  return cudaSuccess;
}

Graph& graph_of(cudaGraph_t handle) { return *reinterpret_cast<Graph*>(handle); }

// An executable graph is a copy that launches under way keep alive.
using Executable = std::shared_ptr<const std::vector<Node>>;
Executable& executable_of(cudaGraphExec_t handle) { return *reinterpret_cast<Executable*>(handle); }

cudaError_t instantiate(cudaGraphExec_t* out, cudaGraph_t graph) {
  return api([&](Machine&) {
    if (out == nullptr || graph == nullptr) return cudaErrorInvalidValue;
    *out = reinterpret_cast<cudaGraphExec_t>(
        new Executable(std::make_shared<const std::vector<Node>>(graph_of(graph).nodes)));
    return cudaSuccess;
  });
}

}  // namespace

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return api([&](Machine& m) { return begin_capture(m, stream, mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return api([&](Machine& m) { return end_capture(m, stream, graph); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return api([&](Machine& m) {
    const auto stream = m.find_stream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  return instantiate(out, graph);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t graph,
                                          unsigned long long /*flags*/) {
  return instantiate(out, graph);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
  return api([&](Machine& m) {
    if (handle == nullptr) return cudaErrorInvalidValue;
    return m.enqueue(stream, {cudaGraphNodeTypeGraph, [&m, executable = executable_of(handle)] {
                                m.run_graph(*executable);
                              }});
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t /*stream*/) {
  return handle == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* n_node) {
  return api([&](Machine&) {
    if (graph == nullptr || n_node == nullptr) return cudaErrorInvalidValue;
    auto& all = graph_of(graph).nodes;
    if (nodes == nullptr) {
      *n_node = all.size();
      return cudaSuccess;
    }
    for (size_t i = 0; i < *n_node; ++i)
      nodes[i] = i < all.size() ? reinterpret_cast<cudaGraphNode_t>(&all[i]) : nullptr;
    *n_node = std::min(*n_node, all.size());
    return cudaSuccess;
  });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  if (node == nullptr || type == nullptr) return cudaErrorInvalidValue;
  *type = reinterpret_cast<const Node*>(node)->work.type;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  delete reinterpret_cast<Executable*>(handle);
  return cudaSuccess;
}
