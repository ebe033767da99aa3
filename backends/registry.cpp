#include "backends/registry.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/topology.h"

namespace infer {

Result<std::vector<std::unique_ptr<runtime::Backend>>> make_backends(
    const BackendOptions& options) {
  std::vector<std::unique_ptr<runtime::Backend>> all;
  INFER_ASSIGN(auto cpu, cpu::make_cpu_backend({options.n_threads, options.n_threads_batch,
                                                options.isa, options.pin}));
  all.push_back(std::move(cpu));
  return all;
}

int suggested_threads() { return cpu::detect_topology().n_threads; }

}  // namespace infer
