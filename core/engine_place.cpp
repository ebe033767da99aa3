#include "core/engine_place.h"

#include <algorithm>
#include <limits>
#include <set>

#include "core/base/error.h"

namespace infer::internal {
namespace {

using graph::Graph;
using graph::HalfLayer;
using runtime::kHost;

static_assert(kGpuLayersAuto == runtime::kAutoLayers && kGpuLayersAll == runtime::kAllLayers);

std::span<const graph::Op> ops_of(const Graph& graph, const HalfLayer& half) {
  return std::span(graph.ops).subspan(static_cast<size_t>(half.op_begin),
                                      static_cast<size_t>(half.op_end - half.op_begin));
}

/// Of weights that the input and the output have in common, as in the file.
int64_t tied_bytes(const Graph& graph) {
  std::set<graph::WeightId> first, both;
  for (const graph::Op& op : ops_of(graph, graph.halves.front()))
    for_each_weight(op, [&](graph::WeightId id) { first.insert(id); });
  for (const graph::Op& op : ops_of(graph, graph.halves.back()))
    for_each_weight(op, [&](graph::WeightId id) {
      if (first.contains(id)) both.insert(id);
    });
  int64_t bytes = 0;
  for (const graph::WeightId id : both)
    bytes += graph.weights[static_cast<size_t>(id)].view.n_bytes;
  return bytes;
}

Result<runtime::PlacementDevice> ask_device(const runtime::Backend& backend, const Graph& graph,
                                            const runtime::CompileOptions& compile,
                                            const graph::Capacity& capacity) {
  const runtime::DeviceInfo info = backend.describe();
  runtime::PlacementDevice device;
  device.name = info.name;
  device.free_bytes = info.free_bytes;
  device.budget_bytes = runtime::memory_budget(info.free_bytes);
  device.tied_bytes = tied_bytes(graph);
  for (int h = 0; h < static_cast<int>(graph.halves.size()); ++h) {
    INFER_ASSIGN(const graph::StagePlan plan, graph::plan_stage(graph, h, h + 1, capacity));
    const runtime::MemoryReport need = backend.estimate(graph, plan, compile);
    device.costs.push_back({need.weight_bytes, need.kv_bytes, need.arena_bytes});
  }
  return device;
}

}  // namespace

Result<StagePlacer> StagePlacer::create(const Graph& graph, const EngineOptions& options,
                                        const runtime::CompileOptions& compile,
                                        const graph::Capacity& capacity,
                                        std::span<runtime::Backend* const> backends) {
  if (backends.empty()) return make_error(ErrorCode::kInvalidArgument, "no backend");
  StagePlacer placer;
  placer.graph_ = &graph;
  placer.compile_ = compile;
  placer.capacity_ = capacity;
  placer.request_.halves = graph.halves;
  if (!options.stages.empty()) {
    INFER_TRY(placer.take_explicit(options, backends));
    return placer;
  }
  for (runtime::Backend* backend : backends) {
    if (backend->describe().is_gpu) {
      placer.gpus_.push_back(backend);
    } else if (placer.host_ == nullptr) {
      placer.host_ = backend;
    }
  }
  placer.request_.n_gpu_layers = options.n_gpu_layers;
  if (options.tap != nullptr && placer.host_ != nullptr && !placer.gpus_.empty()) {
    if (options.n_gpu_layers > 0 && options.warn)
      options.warn("inputs of weight matrices are looked at on the CPU: no layer goes to a GPU");
    placer.request_.n_gpu_layers = 0;
  }
  if (placer.request_.n_gpu_layers == 0 && placer.host_ != nullptr) placer.gpus_.clear();
  INFER_TRY(placer.ask(options));
  INFER_ASSIGN(const std::vector<std::string> refusals, placer.find_refused());
  INFER_TRY(placer.place());
  if (options.inform && !refusals.empty() && placer.refusals_matter())
    options.inform(
        fmt::format("{}: {}, the rest on the CPU", fmt::join(refusals, "; "), placer.offloaded()));
  return placer;
}

Result<void> StagePlacer::take_explicit(const EngineOptions& o,
                                        std::span<runtime::Backend* const> backends) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  is_explicit_ = true;
  const auto n_half = static_cast<int>(request_.halves.size());
  int begin = 0;
  for (const StageSpec& spec : o.stages) {
    if (spec.backend < 0 || static_cast<size_t>(spec.backend) >= backends.size())
      return make_error(kCode, "stage {}: backend {} of {}", stages_.size(), spec.backend,
                        backends.size());
    if (spec.half_end <= begin || spec.half_end > n_half)
      return make_error(kCode, "stage {}: half_end = {} is not in {}..{}", stages_.size(),
                        spec.half_end, begin + 1, n_half);
    stages_.push_back({.backend = backends[static_cast<size_t>(spec.backend)],
                       .half_begin = begin,
                       .half_end = spec.half_end});
    begin = spec.half_end;
  }
  if (begin != n_half) return make_error(kCode, "stages end at half-layer {} of {}", begin, n_half);
  return {};
}

/// Without a GPU nothing has to be known.
Result<void> StagePlacer::ask(const EngineOptions& options) {
  request_.has_host = host_ != nullptr;
  request_.refused.assign(graph_->halves.size(), false);
  if (gpus_.empty()) return {};
  for (const runtime::Backend* gpu : gpus_) {
    INFER_ASSIGN(auto device, ask_device(*gpu, *graph_, compile_, capacity_));
    limits_.push_back(device.budget_bytes);
    request_.gpus.push_back(std::move(device));
  }
  request_.shares = options.tensor_split;
  if (host_ == nullptr) return {};  // what is refused is then an error, which names it
  INFER_ASSIGN(request_.host, ask_device(*host_, *graph_, compile_, capacity_));
  return {};
}

/// Also marks the halves that they refuse. The first reason of each: GPUs of the same one share a
/// line.
Result<std::vector<std::string>> StagePlacer::find_refused() {
  std::vector<std::pair<std::string, std::string>> found;  // reason, GPUs
  std::vector<std::string> lines;
  if (host_ == nullptr) return lines;
  for (const runtime::Backend* gpu : gpus_) {
    std::string first;
    for (size_t h = 0; h < graph_->halves.size(); ++h) {
      const auto ops = ops_of(*graph_, graph_->halves[h]);
      const auto op = std::ranges::find_if_not(
          ops, [&](const graph::Op& each) { return gpu->supports(*graph_, each, compile_); });
      if (op == ops.end()) continue;
      request_.refused[h] = true;
      if (!host_->supports(*graph_, *op, compile_))
        return make_error(ErrorCode::kUnsupported, "{}: {}", host_->describe().name,
                          runtime::describe_refusal(*host_, *graph_, *op, compile_));
      if (first.empty()) first = runtime::describe_refusal(*gpu, *graph_, *op, compile_);
    }
    if (first.empty()) continue;
    const auto same = std::ranges::find(found, first, &std::pair<std::string, std::string>::first);
    if (same != found.end()) {
      same->second += ", " + gpu->describe().name;
    } else {
      found.emplace_back(first, gpu->describe().name);
    }
  }
  for (const auto& [reason, names] : found) lines.push_back(fmt::format("{}: {}", names, reason));
  return lines;
}

/// What the stages take as a whole.
Result<void> StagePlacer::cost_stages() {
  costs_.clear();
  if (gpus_.empty()) return {};
  for (const runtime::StagePlacement& stage : stages_) {
    INFER_ASSIGN(const graph::StagePlan plan,
                 graph::plan_stage(*graph_, stage.half_begin, stage.half_end, capacity_));
    const runtime::MemoryReport need = stage.backend->estimate(*graph_, plan, compile_);
    costs_.push_back({need.weight_bytes, need.kv_bytes, need.arena_bytes});
  }
  return {};
}

runtime::HalfCost StagePlacer::use_of(int device) const {
  runtime::HalfCost sum;
  for (size_t i = 0; i < placement_.size(); ++i) {
    if (placement_[i].device == device) sum += costs_[i];
  }
  return sum;
}

/// What half-layers take alone is a guess of what a stage takes: where that is more than there is,
/// they get less.
Result<void> StagePlacer::place() {
  for (bool fits = false; !fits;) {
    INFER_ASSIGN(placement_, runtime::place(request_));
    stages_.clear();
    for (const runtime::PlacedRun& run : placement_) {
      runtime::Backend* backend =
          run.device == kHost ? host_ : gpus_[static_cast<size_t>(run.device)];
      stages_.push_back(
          {.backend = backend, .half_begin = run.half_begin, .half_end = run.half_end});
    }
    INFER_TRY(cost_stages());
    fits = true;
    if (!is_automatic()) continue;
    for (size_t d = 0; d < gpus_.size(); ++d) {
      const int64_t excess = use_of(static_cast<int>(d)).total() - limits_[d];
      if (excess <= 0) continue;
      fits = false;
      const int64_t guessed = runtime::use_of(request_, placement_, static_cast<int>(d)).total();
      request_.gpus[d].budget_bytes = guessed - excess;
    }
  }
  return {};
}

bool StagePlacer::is_automatic() const {
  return !is_explicit_ && request_.n_gpu_layers == runtime::kAutoLayers && host_ != nullptr;
}

Result<bool> StagePlacer::give_less_to(size_t stage) {
  if (!is_automatic() || placement_[stage].device == kHost) return false;
  gave_less_ = true;
  const int device = placement_[stage].device;
  const runtime::Placement before = placement_;
  int64_t& limit = limits_[static_cast<size_t>(device)];
  limit = std::min(limit, use_of(device).total());
  while (placement_ == before) {
    limit -= limit / 10 + 1;
    INFER_TRY(place());
  }
  return true;
}

std::vector<StageInfo> StagePlacer::describe() const {
  std::vector<StageInfo> out;
  for (const runtime::StagePlacement& stage : stages_) {
    const runtime::DeviceInfo info = stage.backend->describe();
    out.push_back({info.name, info.isa, stage.half_begin, stage.half_end});
  }
  return out;
}

std::vector<std::string> StagePlacer::memory_plan() const {
  const bool has_gpu = std::ranges::any_of(
      placement_, [](const runtime::PlacedRun& run) { return run.device != kHost; });
  if (!has_gpu) return too_little();
  return runtime::memory_plan(request_, placement_, costs_);
}

/// A line where nothing but memory keeps the layers from the GPUs.
std::vector<std::string> StagePlacer::too_little() const {
  if (!is_automatic() || gave_less_) return {};
  runtime::PlacementRequest roomy = request_;
  std::string text;
  for (runtime::PlacementDevice& gpu : roomy.gpus) {
    gpu.budget_bytes = std::numeric_limits<int64_t>::max();
    text += fmt::format("{}{}: {:.1f} MiB free", text.empty() ? "" : ", ", gpu.name,
                        static_cast<double>(gpu.free_bytes) / (1024.0 * 1024.0));
  }
  const Result<runtime::Placement> placement = runtime::place(roomy);
  if (!placement.ok() || *placement == placement_) return {};
  return {text + ": too little for a layer, everything runs on the CPU"};
}

int StagePlacer::n_gpu_layers() const { return runtime::n_gpu_layers(request_.halves, placement_); }

bool StagePlacer::refusals_matter() const {
  runtime::PlacementRequest all = request_;
  all.refused.assign(all.refused.size(), false);
  const Result<runtime::Placement> placement = runtime::place(all);
  return placement.ok() && *placement != placement_;
}

std::string StagePlacer::offloaded() const {
  return fmt::format("{} of {} layers on GPUs", n_gpu_layers(), runtime::n_layers(request_.halves));
}

std::string StagePlacer::name_of(const StageInfo& stage) const {
  return runtime::name_halves(request_.halves, stage.half_begin, stage.half_end);
}

}  // namespace infer::internal
