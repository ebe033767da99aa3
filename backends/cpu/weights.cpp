#include "backends/cpu/weights.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "backends/cpu/pack.h"
#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"

namespace infer::cpu {
namespace {

std::set<graph::WeightId> matrices_of(const graph::Graph& g, const graph::StagePlan& plan) {
  std::set<graph::WeightId> ids;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    const graph::Op& op = g.ops[static_cast<size_t>(i)];
    if (const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs)) {
      for (const graph::LinearItem& item : linear->items) ids.insert(item.weight);
    } else if (std::holds_alternative<graph::MoeLinearAttrs>(op.attrs)) {
      for_each_weight(op, [&](graph::WeightId id) { ids.insert(id); });
    }
  }
  return ids;
}

/// Everything else but embedding tables, which stay in the file.
std::set<graph::WeightId> vectors_of(const graph::Graph& g, const graph::StagePlan& plan) {
  std::set<graph::WeightId> ids;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    const graph::Op& op = g.ops[static_cast<size_t>(i)];
    if (op.kind == graph::OpKind::kEmbed) {
      if (const graph::WeightId id = op.as<graph::EmbedAttrs>().positions; id != graph::kNoWeight)
        ids.insert(id);
    }
    if (op.kind == graph::OpKind::kEmbed || std::holds_alternative<graph::MoeLinearAttrs>(op.attrs))
      continue;
    if (op.kind == graph::OpKind::kLinearGroup) {
      for (const graph::LinearItem& item : op.as<graph::LinearAttrs>().items) {
        if (item.bias != graph::kNoWeight) ids.insert(item.bias);
      }
    } else {
      for_each_weight(op, [&](graph::WeightId id) { ids.insert(id); });
    }
  }
  return ids;
}

}  // namespace

const kern::LinearKernel* linear_kernel(const kern::CpuKernels& kernels, DType type, bool precise) {
  const auto mode = static_cast<size_t>(precise ? kern::ActMode::kPrecise : kern::ActMode::kFast);
  const kern::LinearKernel& k = kernels.linear[mode][static_cast<size_t>(type)];
  return k.run != nullptr ? &k : nullptr;
}

Products products_of(const kern::LinearKernel& kernel, DType type, int64_t k) {
  if (kernel.act_bytes(k) >= 2 * k) return Products::kF32;
  const QuantType& t = quant_type(type);
  // Levels of 4 bits and their scales and minima take 5 bits at most.
  return t.block_bytes * 8 <= t.block_len * 5 ? Products::kInt4 : Products::kInt8;
}

/// Where the matrices go, before any is packed: own_bytes_ counts the packed ones.
void StageWeights::place_matrix(const graph::Graph& graph, graph::WeightId id,
                                const runtime::CompileOptions& options, const Device& device) {
  const graph::Weight& w = graph.weights[static_cast<size_t>(id)];
  const kern::LinearKernel* kernel = linear_kernel(device.kernels(), w.view.type, options.precise);
  INFER_CHECK(kernel != nullptr, "supports() let '{}' pass", w.name);
  PackedMatrix m{kernel, w.view.data, w.n(), w.k(), w.view.n_bytes / w.n_expert()};
  if (kernel->file_layout) {
    mapped_bytes_ += w.view.n_bytes;
  } else {
    m.packed_at = packed_bytes_;
    m.expert_bytes = align_up<int64_t>(kernel->packed_bytes(m.n, m.k), 64);
    packed_bytes_ += m.expert_bytes * w.n_expert();
  }
  matrices_.emplace(id, m);
}

/// Tells of matrices that stay in the file at once, of packed ones as they are done.
void StageWeights::pack(const graph::Graph& graph, std::span<const graph::WeightId> ids,
                        const runtime::CompileOptions& options, Device& device) {
  std::vector<PackJob> jobs;
  std::vector<graph::WeightId> packed;  // ids of the jobs
  int64_t all = 0;
  int64_t done = 0;
  for (graph::WeightId id : ids) {
    const graph::Weight& w = graph.weights[static_cast<size_t>(id)];
    PackedMatrix& m = matrices_.at(id);
    all += w.view.n_bytes;
    if (m.kernel->file_layout) {
      done += w.view.n_bytes;
      continue;
    }
    m.data = packed_.data() + m.packed_at;
    jobs.push_back({m.kernel, w.view.data, w.view.n_bytes / w.n_expert(),
                    packed_.data() + m.packed_at, m.expert_bytes, m.n, m.k, w.n_expert()});
    packed.push_back(id);
  }
  if (options.progress && all > 0) options.progress(done, all);
  pack_matrices(jobs, device.pool(2), [&](size_t i) {
    if (options.weight_copied) options.weight_copied(packed[i]);
    done += graph.weights[static_cast<size_t>(packed[i])].view.n_bytes;
    if (options.progress) options.progress(done, all);
  });
}

Result<void> StageWeights::add_vector(const graph::Graph& graph, graph::WeightId id,
                                      const kern::CpuKernels& kernels) {
  const graph::Weight& w = graph.weights[static_cast<size_t>(id)];
  const auto decode = kernels.decode_row[static_cast<size_t>(w.view.type)];
  INFER_CHECK(decode != nullptr, "supports() let '{}' pass", w.name);
  std::vector<float> values(static_cast<size_t>(w.view.n_elem()));
  decode(w.view.data, w.view.n_elem(), values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return make_error(ErrorCode::kCorrupt, "tensor '{}'[{}] = {}: not a finite number", w.name, i,
                        values[i]);
    }
  }
  own_bytes_ += static_cast<int64_t>(values.size() * sizeof(float));
  vectors_.emplace(id, std::move(values));
  return {};
}

void StageWeights::report(const graph::Graph& graph, PageLock* lock, int64_t* huge_bytes) const {
  lock->add(packed_.data(), packed_.n_bytes());
  if (packed_.is_huge()) *huge_bytes += packed_.n_bytes();
  for (const auto& [id, matrix] : matrices_) {
    const TensorView& view = graph.weights[static_cast<size_t>(id)].view;
    if (matrix.data == view.data) lock->add(view.data, view.n_bytes);
  }
}

Result<StageWeights> StageWeights::load(const graph::Graph& graph, const graph::StagePlan& plan,
                                        const runtime::CompileOptions& options, Device& device) {
  StageWeights weights;
  const auto vectors = vectors_of(graph, plan);
  const auto matrices = matrices_of(graph, plan);
  // As they lie in the file.
  std::vector<graph::WeightId> order(matrices.begin(), matrices.end());
  std::ranges::sort(order, std::less(), [&](graph::WeightId id) {
    return graph.weights[static_cast<size_t>(id)].view.data;
  });
  for (graph::WeightId id : vectors) INFER_TRY(weights.add_vector(graph, id, device.kernels()));
  for (graph::WeightId id : order) weights.place_matrix(graph, id, options, device);
  INFER_ASSIGN(weights.packed_, Buffer::allocate(weights.packed_bytes_, "packed weights",
                                                 device.memory().huge_pages));
  weights.own_bytes_ += weights.packed_bytes_;
  weights.pack(graph, order, options, device);
  return weights;
}

}  // namespace infer::cpu
