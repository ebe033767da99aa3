#include "core/runtime/backend.h"

#include <set>

#include "core/base/quant_types.h"

namespace infer::runtime {

Result<void> Executable::run(const Step& step, const StepIo& io) {
  INFER_ASSIGN(const Ticket ticket, submit(step, io));
  return wait(ticket);
}

MemoryReport Backend::estimate(const graph::Graph& graph, const graph::StagePlan& plan,
                               const CompileOptions& options) const {
  MemoryReport report;
  report.arena_bytes = plan.arena_bytes;
  std::set<graph::WeightId> weights;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    const graph::Op& op = graph.ops[static_cast<size_t>(i)];
    graph::for_each_weight(op, [&](graph::WeightId id) { weights.insert(id); });
    const auto* attn = std::get_if<graph::AttentionAttrs>(&op.attrs);
    if (attn == nullptr) continue;
    const graph::CacheLayer& layer = graph.cache_layers[static_cast<size_t>(attn->cache_layer)];
    const int64_t n_slot = options.groups[static_cast<size_t>(layer.group)].n_block * kBlockTok;
    // The engine has checked that these fit 64 bits.
    const int64_t row = row_bytes(options.type_k, layer.head_dim).value_or(0) +
                        row_bytes(options.type_v, layer.head_dim_v).value_or(0);
    report.kv_bytes += n_slot * layer.n_kv_head * row;
  }
  for (graph::WeightId id : weights)
    report.weight_bytes += graph.weights[static_cast<size_t>(id)].view.n_bytes;
  return report;
}

}  // namespace infer::runtime
