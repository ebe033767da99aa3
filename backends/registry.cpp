#include "backends/registry.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/topology.h"
#include "backends/cuda/cuda_backend.h"
#include "core/base/error.h"

namespace infer {
namespace {

using BackendList = std::vector<std::unique_ptr<runtime::Backend>>;

/// "cuda:1" and, as llama.cpp writes it, "CUDA1".
Result<int> cuda_index(const std::string& name) {
  constexpr std::string_view kPrefix = "cuda";
  std::string lower = name;
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  if (lower.starts_with(kPrefix)) {
    lower.erase(0, kPrefix.size());
    if (lower.starts_with(':')) lower.erase(0, 1);
    int index = 0;
    const char* end = lower.data() + lower.size();
    const auto [rest, error] = std::from_chars(lower.data(), end, index);
    if (error == std::errc() && rest == end && index >= 0) return index;
  }
  return make_error(ErrorCode::kInvalidArgument,
                    "device '{}': devices are called cuda:0, cuda:1, ...", name);
}

Result<BackendList> make_gpus(const BackendOptions& options, GpuAbsence* absence) {
  cuda::CudaBackendOptions cuda;
  cuda.left_out = &absence->left_out;
  for (const std::string& name : options.devices) {
    INFER_ASSIGN(const int index, cuda_index(name));
    if (std::ranges::find(cuda.devices, index) != cuda.devices.end())
      return make_error(ErrorCode::kInvalidArgument, "device '{}' is named twice", name);
    cuda.devices.push_back(index);
  }
  auto gpus = cuda::make_cuda_backends(cuda, &absence->why);
  if (gpus.ok() && !gpus->empty()) {
    absence->why.clear();
    return gpus;
  }
  if (!gpus.ok()) {
    if (!options.devices.empty()) return gpus;
    absence->why = gpus.error().message;  // nobody asked for it: the CPU will do
  }
  absence->built = absence->why != "built without CUDA";
  absence->failed = absence->built && !absence->why.starts_with("no ");
  if (options.devices.empty()) return BackendList();
  return make_error(ErrorCode::kInvalidArgument, "device '{}': no GPU ({})",
                    options.devices.front(), absence->why);
}

}  // namespace

Result<BackendList> make_backends(const BackendOptions& options, GpuAbsence* absence) {
  GpuAbsence unused;
  BackendList all;
  if (options.gpus) {
    INFER_ASSIGN(all, make_gpus(options, absence != nullptr ? absence : &unused));
  }
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
