#pragma once

#include <cstdint>
#include <string_view>

#include "backends/cpu/topology.h"
#include "core/base/result.h"

/// Machines whose memory is nearer to some cores than to others, as llama.cpp's --numa treats them.
namespace infer::cpu {

enum class Numa : uint8_t {
  kNone,
  kDistribute,  ///< threads and pages spread over all nodes
  kIsolate,     ///< threads and pages on the node that the process started on
  kNumactl,     ///< the CPUs that numactl left, which is what the affinity mask says anyway
};

/// Empty: kNone. Errors: kInvalidArgument.
Result<Numa> parse_numa(std::string_view name);

/// Orders (kDistribute: one core of each node in turn) or thins (kIsolate: cores of `home`) the
/// CPUs; counts follow. Nothing changes with one node, or where `home` has none of the CPUs.
void arrange_cpus(Numa numa, int home, CpuTopology* topology);

/// arrange_cpus() for the node of the calling CPU, and the policy for memory that the calling
/// thread, and threads it starts later, touch first. Nothing with one node. A refusal of the system
/// costs speed only.
void place_on_nodes(Numa numa, CpuTopology* topology);

}  // namespace infer::cpu
