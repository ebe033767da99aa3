#pragma once

#include <memory>
#include <string>

#include "core/base/result.h"
#include "core/runtime/backend.h"

namespace infer::cpu {

struct CpuBackendOptions {
  int n_threads = 0;  ///< for steps of few rows; 0: one a physical core within the cgroup's quota
  int n_threads_batch = 0;  ///< for steps of many rows; 0: n_threads
  std::string isa;          ///< "generic", "avx2", ...; empty: the best the CPU has
  bool pin = true;          ///< bind threads to cores when they do not outnumber them
};

/// Errors: kInvalidArgument / kUnsupported for `isa`.
Result<std::unique_ptr<runtime::Backend>> make_cpu_backend(const CpuBackendOptions& options);

}  // namespace infer::cpu
