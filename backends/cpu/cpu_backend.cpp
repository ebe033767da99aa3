#include "backends/cpu/cpu_backend.h"

#include <unistd.h>

#include <algorithm>
#include <span>

#include "backends/cpu/executable.h"
#include "backends/cpu/topology.h"
#include "core/base/cpu_features.h"
#include "core/base/error.h"
#include "kernels/cpu/dispatch.h"

namespace infer::cpu {
namespace {

class CpuBackend final : public runtime::Backend {
 public:
  CpuBackend(kern::CpuKernels kernels, int n_threads, int n_threads_batch,
             std::span<const int> cpus, int64_t l2_bytes, const MemoryPolicy& memory,
             std::string cpu_name)
      : device_(kernels, n_threads, n_threads_batch, cpus, l2_bytes, memory),
        n_threads_(n_threads),
        cpu_name_(std::move(cpu_name)) {}

  runtime::DeviceInfo describe() const override {
    const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
    return {"cpu",
            fmt::format("{}, {}, {} thread{}", cpu_name_, device_.kernels().isa, n_threads_,
                        n_threads_ == 1 ? "" : "s"),
            memory, std::string(device_.kernels().isa)};
  }

  bool supports(const graph::Graph& graph, const graph::Op& op,
                const runtime::CompileOptions& options) const override {
    const kern::CpuKernels& k = device_.kernels();
    const auto type_of = [&](graph::WeightId id) {
      return graph.weights[static_cast<size_t>(id)].view.type;
    };
    const auto decodes = [&](graph::WeightId id) {
      return id == graph::kNoWeight || k.decode_row[static_cast<size_t>(type_of(id))] != nullptr;
    };
    const bool uses_kv = op.kind == graph::OpKind::kQkNormRopeStore ||
                         op.kind == graph::OpKind::kKvStore || op.kind == graph::OpKind::kAttention;
    if (uses_kv && (options.type_k == DType::kBF16 || options.type_v == DType::kBF16)) return false;
    if (op.kind == graph::OpKind::kLinearGroup) {
      for (const graph::LinearItem& item : op.as<graph::LinearAttrs>().items) {
        if (linear_kernel(k, type_of(item.weight), options.precise) == nullptr ||
            !decodes(item.bias))
          return false;
        if (item.adapter < 0) continue;
        for (const graph::LowRank& add : graph.item_adapters[static_cast<size_t>(item.adapter)]) {
          if (k.decode_row[static_cast<size_t>(add.a.type)] == nullptr ||
              k.decode_row[static_cast<size_t>(add.b.type)] == nullptr)
            return false;
        }
      }
      return true;
    }
    if (std::holds_alternative<graph::MoeLinearAttrs>(op.attrs)) {
      bool computes = true;
      for_each_weight(op, [&](graph::WeightId id) {
        computes = computes && linear_kernel(k, type_of(id), options.precise) != nullptr;
      });
      return computes;
    }
    bool ok = true;
    for_each_weight(op, [&](graph::WeightId id) { ok = ok && decodes(id); });
    return ok;
  }

  Result<std::unique_ptr<runtime::Executable>> compile(
      const graph::Graph& graph, const graph::StagePlan& plan,
      const runtime::CompileOptions& options) override {
    INFER_ASSIGN(auto exe, CpuExecutable::create(graph, plan, options, device_));
    return std::unique_ptr<runtime::Executable>(std::move(exe));
  }

 private:
  Device device_;
  int n_threads_;
  std::string cpu_name_;
};

}  // namespace

Result<std::unique_ptr<runtime::Backend>> make_cpu_backend(const CpuBackendOptions& options) {
  const CpuFeatures features = detect_cpu_features();
  INFER_ASSIGN(const kern::CpuKernels kernels, kern::select_kernels(features, options.isa));
  CpuTopology topology = detect_topology();
  place_on_nodes(options.numa, &topology);
  const int n_threads = options.n_threads > 0 ? options.n_threads : topology.n_threads;
  const int n_threads_batch = options.n_threads_batch > 0 ? options.n_threads_batch : n_threads;
  const bool pin = options.pin && std::max(n_threads, n_threads_batch) <= topology.n_physical;
  return std::unique_ptr<runtime::Backend>(std::make_unique<CpuBackend>(
      kernels, n_threads, n_threads_batch,
      pin ? std::span<const int>(topology.cpus) : std::span<const int>(), topology.l2_bytes,
      MemoryPolicy{.huge_pages = options.huge_pages, .lock = options.lock_memory},
      features.vendor_and_model));
}

}  // namespace infer::cpu
