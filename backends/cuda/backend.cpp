#include <algorithm>
#include <numeric>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/device.h"
#include "backends/cuda/executable.h"
#include "backends/cuda/layout.h"
#include "backends/cuda/supports.h"
#include "core/base/error.h"
#include "kernels/cuda/row_ops.h"

namespace infer::cuda {
namespace {

constexpr int kLeastArchitecture = 75;

class CudaBackend final : public runtime::Backend {
 public:
  CudaBackend(Device device, const CudaBackendOptions& options, std::shared_ptr<SaidOnce> said)
      : device_(std::move(device)), options_(options), said_(std::move(said)) {
    options_.left_out = nullptr;
  }

  runtime::DeviceInfo describe() const override {
    runtime::DeviceInfo info;
    info.name = fmt::format("cuda:{}", device_.index);
    info.description = device_.description;
    info.memory_bytes = device_.memory_bytes;
    info.isa = fmt::format("sm_{}", device_.architecture);
    info.is_gpu = true;
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    if (device_.use().ok() && check(cudaMemGetInfo(&free_bytes, &all_bytes), "memory").ok())
      info.free_bytes = static_cast<int64_t>(free_bytes);
    return info;
  }

  bool supports(const graph::Graph& graph, const graph::Op& op,
                const runtime::CompileOptions& options) const override {
    return supports_op(graph, op, options, device_);
  }

  runtime::MemoryReport estimate(const graph::Graph& graph, const graph::StagePlan& plan,
                                 const runtime::CompileOptions& options) const override {
    const auto first = graph.ops.begin();
    const bool all =
        std::all_of(first + plan.op_begin, first + plan.op_end,
                    [&](const graph::Op& op) { return supports_op(graph, op, options, device_); });
    if (!all) return Backend::estimate(graph, plan, options);
    const Result<StageLayout> layout = StageLayout::plan(graph, plan, options, device_);
    if (!layout.ok()) return Backend::estimate(graph, plan, options);
    runtime::MemoryReport report;
    report.weight_bytes = layout->weights.n_bytes;
    report.kv_bytes = layout->kv_bytes;
    report.arena_bytes = layout->arena_bytes + layout->scratch.n_bytes + layout->library_bytes;
    if (options_.graphs) report.arena_bytes += layout->graph_bytes;
    return report;
  }

  Result<std::unique_ptr<runtime::Executable>> compile(
      const graph::Graph& graph, const graph::StagePlan& plan,
      const runtime::CompileOptions& options) override {
    INFER_ASSIGN(auto exe,
                 CudaExecutable::create(graph, plan, options, device_, options_, said_.get()));
    return std::unique_ptr<runtime::Executable>(std::move(exe));
  }

 private:
  Device device_;
  CudaBackendOptions options_;
  std::shared_ptr<SaidOnce> said_;
};

/// What would go wrong with the first launch, found before anything is placed there; empty:
/// nothing. Sets the architecture to that of the code.
std::string why_unusable(Device* device) {
  int built_for = 0;
  size_t free_bytes = 0;
  size_t all_bytes = 0;
  cudaError_t error = cudaSetDevice(device->index);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &all_bytes);
  if (error == cudaSuccess) error = code_architecture(&built_for);
  if (error == cudaSuccess) {
    device->architecture = std::min(device->architecture, built_for);
    return {};
  }
  static_cast<void>(cudaGetLastError());
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "this build has no code for it";
    case cudaErrorUnsupportedPtxVersion:
      return "the NVIDIA driver is too old for the code of this build";
    default:
      return fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
  }
}

Result<Device> open_device(int index) {
  Device device;
  device.index = index;
  cudaDeviceProp properties;
  INFER_TRY(check(cudaGetDeviceProperties(&properties, index), "asking for the device"));
  device.architecture = properties.major * 10 + properties.minor;
  device.n_multiprocessor = properties.multiProcessorCount;
  device.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device.description =
      fmt::format("{}, sm_{}, {:.1f} GiB", properties.name, device.architecture,
                  static_cast<double>(device.memory_bytes) / (1024.0 * 1024.0 * 1024.0));
  if (device.architecture < kLeastArchitecture)
    return make_error(ErrorCode::kUnsupported, "cuda:{} ({}) is older than sm_{}", index,
                      device.description, kLeastArchitecture);
  if (const std::string why = why_unusable(&device); !why.empty())
    return make_error(ErrorCode::kUnsupported, "cuda:{} ({}): {}", index, device.description, why);
  return device;
}

/// Why the runtime counts no device; empty when it counts some.
std::string why_no_device(cudaError_t error, int n_device) {
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    return has_driver ? fmt::format("the NVIDIA driver is too old: it knows CUDA {}.{}",
                                    driver / 1000, driver % 1000 / 10)
                      : "no NVIDIA driver";
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && n_device == 0))
    return "no CUDA device";
  if (error != cudaSuccess)
    return fmt::format("CUDA does not start: {}", cudaGetErrorString(error));
  return {};
}

}  // namespace

Result<std::vector<std::unique_ptr<runtime::Backend>>> make_cuda_backends(
    const CudaBackendOptions& options, std::string* why_none) {
  std::vector<std::unique_ptr<runtime::Backend>> backends;
  int n_device = 0;
  const cudaError_t counted = cudaGetDeviceCount(&n_device);
  *why_none = why_no_device(counted, n_device);
  if (!why_none->empty()) return backends;
  const auto said = std::make_shared<SaidOnce>();
  std::vector<std::string> left_out;
  std::vector<int> wanted = options.devices;
  if (wanted.empty()) {
    wanted.resize(static_cast<size_t>(n_device));
    std::iota(wanted.begin(), wanted.end(), 0);
  }
  for (const int index : wanted) {
    if (index < 0 || index >= n_device)
      return make_error(ErrorCode::kInvalidArgument, "no device cuda:{}: there {} {}", index,
                        n_device == 1 ? "is" : "are", n_device);
    Result<Device> device = open_device(index);
    if (device.ok()) {
      backends.push_back(std::make_unique<CudaBackend>(*std::move(device), options, said));
    } else if (!options.devices.empty()) {
      return std::move(device).error();
    } else {
      left_out.push_back(std::move(device).error().message);
    }
  }
  if (backends.empty()) *why_none = fmt::format("{}", fmt::join(left_out, "; "));
  if (options.left_out != nullptr) *options.left_out = std::move(left_out);
  return backends;
}

}  // namespace infer::cuda
