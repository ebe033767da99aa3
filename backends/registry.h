#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/runtime/backend.h"

namespace infer {

struct BackendOptions {
  int n_threads = 0;         ///< 0: one a physical core within the cgroup's quota
  int n_threads_batch = 0;   ///< 0: n_threads
  std::string isa;           ///< CPU level, empty: the best the CPU has
  bool pin = true;           ///< bind threads to cores
  bool huge_pages = true;    ///< ask for them
  bool lock_memory = false;  ///< keep weights and K/V in RAM
  std::string numa;          ///< "distribute", "isolate", "numactl"; empty: as it comes
  bool gpus = true;          ///< false: the CPU alone; no driver is opened
  /// GPUs to use, in this order: "cuda:0"; empty: all.
  std::vector<std::string> devices{};
};

/// Why there is no GPU among the backends.
struct GpuAbsence {
  std::string why;      ///< "built without CUDA", "no CUDA device"; empty: there is one
  bool built = false;   ///< this build could use one
  bool failed = false;  ///< there seems to be one, but it cannot be used
  /// A line for each GPU that cannot be used, whether there are others or not.
  std::vector<std::string> left_out;
};

/// The backends of this build and machine: GPUs first, the CPU is always the last. Explicit list,
/// no static constructors. Errors: kInvalidArgument naming what is wrong with an option; a device
/// that there is not.
Result<std::vector<std::unique_ptr<runtime::Backend>>> make_backends(const BackendOptions& options,
                                                                     GpuAbsence* absence = nullptr);

/// Threads that the CPU backend takes when it is not told: for warnings about a larger -t.
int suggested_threads();

/// NUMA nodes this process may use; 1 where nobody knows.
int numa_nodes();

}  // namespace infer
