#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/device.h"

namespace infer::cuda {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { static_cast<void>(cudaGraphDestroy(graph)); }
  void operator()(cudaGraphExec_t graph) const { static_cast<void>(cudaGraphExecDestroy(graph)); }
};
using CudaGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
using CudaGraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;

/// Steps of decoding as captured graphs, one for each size. What varies from step to step is in
/// device memory, so a replay changes no node.
class GraphCache {
 public:
  struct Key {
    int m = 0;      ///< rows
    int n_top = 0;  ///< candidates a row
    bool operator<(const Key& o) const { return std::tie(m, n_top) < std::tie(o.m, o.n_top); }
  };
  using Launches = std::function<Result<void>()>;

  /// `warn` hears once of what cannot be captured; may be empty.
  void enable(std::function<void(const std::string&)> warn, CudaCounters* counters) {
    enabled_ = true;
    warn_ = std::move(warn);
    counters_ = counters;
  }
  bool is_enabled() const { return enabled_; }

  /// Puts what `launches` puts into `stream`, the same launches always for one key. The first time
  /// they are launched one by one, which loads their code, and captured for the times to come.
  Result<void> run(const Key& key, const Stream& stream, const Launches& launches);

 private:
  Result<CudaGraphExec> capture(const Key& key, const Stream& stream, const Launches& launches);

  bool enabled_ = false;
  std::function<void(const std::string&)> warn_;
  CudaCounters* counters_ = nullptr;
  std::map<Key, CudaGraphExec> graphs_;
};

}  // namespace infer::cuda
