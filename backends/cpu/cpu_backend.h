#pragma once

#include <memory>
#include <string>

#include "backends/cpu/numa.h"
#include "core/base/result.h"
#include "core/runtime/backend.h"

namespace infer::cpu {

struct CpuBackendOptions {
  int n_threads = 0;  ///< for steps of few rows; 0: one a physical core within the cgroup's quota
  int n_threads_batch = 0;  ///< for steps of many rows; 0: n_threads
  std::string isa;          ///< "generic", "avx2", ...; empty: the best the CPU has
  bool pin = true;          ///< bind threads to cores when they do not outnumber them
  bool huge_pages = true;   ///< ask for them, for weights and K/V
  bool lock_memory =
      false;  ///< keep weights and K/V in RAM; a refusal goes to CompileOptions::warn
  Numa numa = Numa::kNone;
};

/// Errors: kInvalidArgument / kUnsupported for `isa`.
Result<std::unique_ptr<runtime::Backend>> make_cpu_backend(const CpuBackendOptions& options);

}  // namespace infer::cpu
