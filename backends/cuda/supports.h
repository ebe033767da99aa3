#pragma once

#include "backends/cuda/device.h"
#include "core/graph/graph.h"
#include "core/runtime/backend.h"

namespace infer::cuda {

/// Whether the kernels take an op with the types of its weights.
bool supports_op(const graph::Graph& graph, const graph::Op& op,
                 const runtime::CompileOptions& options, const Device& device);

}  // namespace infer::cuda
