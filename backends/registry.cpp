#include "backends/registry.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/topology.h"

namespace infer {

Result<std::vector<std::unique_ptr<runtime::Backend>>> make_backends(
    const BackendOptions& options) {
  std::vector<std::unique_ptr<runtime::Backend>> all;
  INFER_ASSIGN(const cpu::Numa numa, cpu::parse_numa(options.numa));
  INFER_ASSIGN(auto cpu, cpu::make_cpu_backend({.n_threads = options.n_threads,
                                                .n_threads_batch = options.n_threads_batch,
                                                .isa = options.isa,
                                                .pin = options.pin,
                                                .huge_pages = options.huge_pages,
                                                .lock_memory = options.lock_memory,
                                                .numa = numa}));
  all.push_back(std::move(cpu));
  return all;
}

int numa_nodes() { return cpu::detect_topology().n_node; }

int suggested_threads() { return cpu::detect_topology().n_threads; }

}  // namespace infer
