#include "backends/cpu/numa.h"

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include <hwloc.h>

#include "core/base/error.h"

namespace infer::cpu {
namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology_t t) const { hwloc_topology_destroy(t); }
};
struct BitmapDeleter {
  void operator()(hwloc_bitmap_t b) const { hwloc_bitmap_free(b); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, TopologyDeleter>;
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapDeleter>;

}  // namespace

Result<Numa> parse_numa(std::string_view name) {
  if (name.empty()) return Numa::kNone;
  if (name == "distribute") return Numa::kDistribute;
  if (name == "isolate") return Numa::kIsolate;
  if (name == "numactl") return Numa::kNumactl;
  return make_error(ErrorCode::kInvalidArgument,
                    "--numa {}: known are distribute, isolate, numactl", name);
}

void arrange_cpus(Numa numa, int home, CpuTopology* t) {
  if (t->n_node <= 1 || t->node_of.size() != t->cpus.size()) return;
  std::map<int, std::vector<int>> by_node;
  for (size_t i = 0; i < t->cpus.size(); ++i) by_node[t->node_of[i]].push_back(t->cpus[i]);
  if (numa == Numa::kIsolate) {
    const auto it = by_node.find(home);
    if (it == by_node.end()) return;
    t->cpus = it->second;
    t->node_of.assign(t->cpus.size(), home);
    t->n_node = 1;
    t->n_physical = static_cast<int>(t->cpus.size());
    t->n_threads = std::min(t->n_threads, t->n_physical);
  } else if (numa == Numa::kDistribute) {
    const size_t n = t->cpus.size();
    t->cpus.clear();
    t->node_of.clear();
    for (size_t i = 0; t->cpus.size() < n; ++i) {
      for (const auto& [node, cpus] : by_node) {
        if (i >= cpus.size()) continue;
        t->cpus.push_back(cpus[i]);
        t->node_of.push_back(node);
      }
    }
  }
}

void place_on_nodes(Numa numa, CpuTopology* t) {
  if (t->n_node <= 1 || (numa != Numa::kDistribute && numa != Numa::kIsolate)) return;
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return;
  const Topology topology(raw);
  if (hwloc_topology_load(raw) != 0) return;
  const Bitmap here(hwloc_bitmap_alloc());
  const Bitmap nodes(hwloc_bitmap_alloc());
  if (here == nullptr || nodes == nullptr) return;
  if (hwloc_get_last_cpu_location(raw, here.get(), HWLOC_CPUBIND_THREAD) != 0) return;
  hwloc_cpuset_to_nodeset(raw, here.get(), nodes.get());
  const int home = hwloc_bitmap_first(nodes.get());
  arrange_cpus(numa, home, t);
  hwloc_bitmap_zero(nodes.get());
  for (const int node : t->node_of) hwloc_bitmap_set(nodes.get(), static_cast<unsigned>(node));
  // Linux has a policy for threads only; threads that are started later inherit it.
  const bool spread = numa == Numa::kDistribute;
  (void)hwloc_set_membind(raw, nodes.get(), spread ? HWLOC_MEMBIND_INTERLEAVE : HWLOC_MEMBIND_BIND,
                          HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
}

}  // namespace infer::cpu
