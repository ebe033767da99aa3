#include "backends/cpu/profile.h"

#include <algorithm>
#include <string>
#include <utility>

#include "backends/cpu/executable.h"
#include "core/base/quant_types.h"

namespace infer::cpu {
namespace {

OpCost operator+(const OpCost& a, const OpCost& b) {
  return {a.bytes + b.bytes, a.f32_ops + b.f32_ops, a.int8_ops + b.int8_ops,
          a.int4_ops + b.int4_ops};
}
OpCost operator*(const OpCost& a, int64_t n) {
  const auto f = static_cast<double>(n);
  return {a.bytes * f, a.f32_ops * f, a.int8_ops * f, a.int4_ops * f};
}

/// Builds the models of a stage's ops.
class Modeller {
 public:
  Modeller(const graph::Graph& graph, const kern::KvPoolView* pool, const LinearPlan& linear)
      : g_(graph), pool_(pool), linear_(linear) {}

  CostModel of(const graph::Op& op) const {
    CostModel m;
    for (const auto* values : {&op.in, &op.out}) {
      for (const graph::ValueId v : *values) m.row.bytes += 4.0 * n_cols(v);
    }
    const graph::ValueId any = op.in.empty() ? op.out[0] : op.in[0];
    m.rows = (op.kind == graph::OpKind::kGatherRows ? value(op.out[0]) : value(any)).rows;
    std::visit([&](const auto& attrs) { add(op, attrs, &m); }, op.attrs);
    return m;
  }

 private:
  const graph::Value& value(graph::ValueId v) const { return g_.values[static_cast<size_t>(v)]; }
  double n_cols(graph::ValueId v) const { return static_cast<double>(value(v).n_cols); }
  const graph::Weight& weight(graph::WeightId id) const {
    return g_.weights[static_cast<size_t>(id)];
  }
  double out_cols(const graph::Op& op) const { return n_cols(op.out[0]); }
  /// Rotates n_head heads: two products and a sum for each of a pair's numbers.
  double rope_ops(int rope, int64_t n_head) const {
    if (rope < 0) return 0.0;
    return 3.0 * static_cast<double>(g_.ropes[static_cast<size_t>(rope)].rope_dim * n_head);
  }
  /// A token's K and V in the pool.
  double slot_bytes() const {
    return static_cast<double>(kern::k_block_bytes(*pool_) + kern::v_block_bytes(*pool_)) /
           static_cast<double>(kern::kBlockTok);
  }
  static constexpr double kNormOps = 4.0;  // square, add, scale, weigh: of an element

  void add(const graph::Op& op, const graph::NoAttrs& /*attrs*/, CostModel* m) const {
    if (op.kind == graph::OpKind::kAdd) m->row.f32_ops = out_cols(op);
    if (op.kind == graph::OpKind::kGateAdd) m->row.f32_ops = 2.0 * out_cols(op);
    // What kGatherRows does not take of its input it does not read.
    if (op.kind == graph::OpKind::kGatherRows) m->row.bytes = 8.0 * out_cols(op);
  }
  void add(const graph::Op& /*op*/, const graph::EmbedAttrs& a, CostModel* m) const {
    const graph::Weight& table = weight(a.table);
    m->row.bytes += static_cast<double>(row_bytes(table.view.type, table.k()).value_or(0));
  }
  void add(const graph::Op& op, const graph::NormAttrs& a, CostModel* m) const {
    m->row.f32_ops = (kNormOps + (a.residual_after ? 1.0 : 0.0)) * out_cols(op);
  }
  void add(const graph::Op& /*op*/, const graph::LinearAttrs& a, CostModel* m) const {
    for (size_t i = 0; i < linear_.items.size(); ++i) {
      const PackedMatrix& w = linear_.items[i].w;
      m->call.bytes += static_cast<double>(w.expert_bytes);
      m->row = m->row + product_cost(w, a.items[i].weight);
    }
  }
  void add(const graph::Op& op, const graph::MoeLinearAttrs& a, CostModel* m) const {
    size_t i = 0;
    for_each_weight(op, [&](graph::WeightId id) {
      const PackedMatrix& w = linear_.items[i++].w;
      m->expert.bytes += static_cast<double>(w.expert_bytes);
      m->row = m->row + product_cost(w, id) * a.n_used;
    });
  }
  void add(const graph::Op& op, const graph::QkvAttrs& a, CostModel* m) const {
    m->row.bytes += slot_bytes();
    m->row.f32_ops = rope_ops(a.rope, a.n_head + pool_->n_kv_head);
    if (a.q_norm != graph::kNoWeight) m->row.f32_ops += kNormOps * n_cols(op.in[0]);
    if (a.k_norm != graph::kNoWeight) m->row.f32_ops += kNormOps * n_cols(op.in[1]);
  }
  void add(const graph::Op& /*op*/, const graph::KvStoreAttrs& /*attrs*/, CostModel* m) const {
    m->row.bytes += slot_bytes();
  }
  void add(const graph::Op& /*op*/, const graph::AttentionAttrs& a, CostModel* m) const {
    m->slot.bytes = slot_bytes();
    m->pair.f32_ops = 2.0 * static_cast<double>(a.n_head * (pool_->head_dim + pool_->head_dim_v));
  }
  void add(const graph::Op& op, const graph::GluAttrs& /*attrs*/, CostModel* m) const {
    m->row.f32_ops = 2.0 * out_cols(op);
  }
  void add(const graph::Op& op, const graph::HeadNormAttrs& /*attrs*/, CostModel* m) const {
    m->row.f32_ops = kNormOps * out_cols(op);
  }
  void add(const graph::Op& /*op*/, const graph::RopeAttrs& a, CostModel* m) const {
    m->row.f32_ops = rope_ops(a.rope, a.n_head);
  }
  void add(const graph::Op& op, const graph::MoeRouteAttrs& /*attrs*/, CostModel* m) const {
    m->row.f32_ops = 2.0 * n_cols(op.in[0]);
  }

  /// Of a row with a matrix.
  OpCost product_cost(const PackedMatrix& w, graph::WeightId id) const {
    const double ops = 2.0 * static_cast<double>(w.n) * static_cast<double>(w.k);
    switch (products_of(*w.kernel, weight(id).view.type, w.k)) {
      case Products::kF32:
        return {.f32_ops = ops};
      case Products::kInt8:
        return {.int8_ops = ops};
      case Products::kInt4:
        return {.int4_ops = ops};
    }
    return {};
  }

  const graph::Graph& g_;
  const kern::KvPoolView* pool_;
  const LinearPlan& linear_;
};

int cache_layer_of(const graph::Op& op) {
  if (const auto* a = std::get_if<graph::QkvAttrs>(&op.attrs)) return a->cache_layer;
  if (const auto* a = std::get_if<graph::KvStoreAttrs>(&op.attrs)) return a->cache_layer;
  if (const auto* a = std::get_if<graph::AttentionAttrs>(&op.attrs)) return a->cache_layer;
  return -1;
}

std::string_view name_of(kern::KvType type) {
  switch (type) {
    case kern::KvType::kF32:
      return "f32";
    case kern::KvType::kF16:
      return "f16";
    case kern::KvType::kQ8_0:
      return "q8_0";
    case kern::KvType::kQ4_0:
      return "q4_0";
  }
  return "";
}

/// "q4_k", or "q4_k+q6_k": each type once.
std::string types_of(const graph::Graph& graph, const graph::Op& op) {
  std::vector<DType> types;
  const auto add = [&](graph::WeightId id) {
    if (id == graph::kNoWeight) return;
    const DType type = graph.weights[static_cast<size_t>(id)].view.type;
    if (std::ranges::find(types, type) == types.end()) types.push_back(type);
  };
  if (const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs)) {
    for (const graph::LinearItem& item : linear->items) add(item.weight);
  } else {
    for_each_weight(op, add);
  }
  std::string all;
  for (const DType type : types) {
    if (!all.empty()) all += '+';
    all += infer::name_of(type);
  }
  return all;
}

}  // namespace

OpCost CostModel::of(const StepShape& step) const {
  const int64_t n_row = rows == graph::Rows::kTok ? step.n_tok : step.n_logit;
  const StepShape::Seen s = seen < step.seen.size() ? step.seen[seen] : StepShape::Seen{};
  return call + row * n_row + expert * step.n_expert_in_use + slot * s.n_slot + pair * s.n_pair;
}

std::string profile_name(const graph::Graph& graph, const graph::Op& op,
                         const kern::KvPoolView* pool) {
  const bool in_layer = op.name.starts_with("blk.");
  std::string role = in_layer ? op.name.substr(op.name.find('.', 4) + 1) : op.name;
  std::ranges::replace(role, '|', '/');  // which Markdown's tables would take for theirs
  switch (op.kind) {
    case graph::OpKind::kLinearGroup:
      return "linear " + role + " " + types_of(graph, op);
    case graph::OpKind::kMoeGlu:
    case graph::OpKind::kMoeDown:
      return "experts " + role + " " + types_of(graph, op);
    case graph::OpKind::kAttention: {
      std::string kind = "attention ";
      kind += name_of(pool->k_type);
      if (pool->v_type != pool->k_type) {
        kind += '+';
        kind += name_of(pool->v_type);
      }
      const int64_t window = op.as<graph::AttentionAttrs>().window;
      return window > 0 ? kind + " window " + std::to_string(window) : kind;
    }
    case graph::OpKind::kQkNormRopeStore:
      return "rope, store K and V";
    default:
      return std::string(graph::name_of(op.kind));
  }
}

StageProfile::StageProfile(const graph::Graph& graph, const graph::StagePlan& plan,
                           std::span<const LinearPlan> linears,
                           std::span<const kern::KvPoolView> pools,
                           const std::vector<int32_t>& expert_begin, runtime::OpProfile& profile)
    : first_op_(plan.op_begin), expert_begin_(expert_begin), profile_(profile) {
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    const graph::Op& op = graph.ops[static_cast<size_t>(i)];
    const int layer = cache_layer_of(op);
    const kern::KvPoolView* pool = layer < 0 ? nullptr : &pools[static_cast<size_t>(layer)];
    const auto at = static_cast<size_t>(i - plan.op_begin);
    if (at + 1 < linears.size() && linears[at + 1].norm == i) {  // the op behind it does it
      costs_.emplace_back();
      sums_.push_back(nullptr);
      continue;
    }
    const LinearPlan& linear = linears[at];
    const Modeller modeller(graph, pool, linear);
    CostModel model = modeller.of(op);
    if (linear.norm >= 0)
      model.row.f32_ops += modeller.of(graph.ops[static_cast<size_t>(linear.norm)]).row.f32_ops;
    if (const auto* attn = std::get_if<graph::AttentionAttrs>(&op.attrs))
      model.seen = seen_of(attn->window);
    costs_.push_back(model);
    sums_.push_back(profile.watch(profile_name(graph, op, pool), op.kind));
  }
}

size_t StageProfile::seen_of(int64_t window) {
  const auto at = std::ranges::find(shape_.seen, window, &StepShape::Seen::window);
  if (at != shape_.seen.end()) return static_cast<size_t>(at - shape_.seen.begin());
  shape_.seen.push_back({window, 0, 0});
  return shape_.seen.size() - 1;
}

void StageProfile::begin_step(const runtime::Step& step) {
  on_ = profile_.recording();
  if (!on_) return;
  step_begin_ = Clock::now();
  shape_.n_tok = static_cast<int64_t>(step.rows.size());
  for (StepShape::Seen& s : shape_.seen) {
    s.n_slot = s.n_pair = 0;
    int64_t first_unseen = 0;  // of the row's sequence: slots before are counted
    int32_t seq = -1;
    for (const runtime::Row& row : step.rows) {
      const int64_t end = row.slot + 1;
      const int64_t begin = s.window > 0 ? std::max<int64_t>(0, end - s.window) : 0;
      if (row.seq != std::exchange(seq, row.seq)) first_unseen = 0;
      s.n_slot += end - std::max(begin, first_unseen);
      s.n_pair += end - begin;
      first_unseen = end;
    }
  }
}

void StageProfile::end_step() {
  if (!on_) return;
  profile_.add_step(std::chrono::duration<double>(Clock::now() - step_begin_).count());
  on_ = false;
}

void StageProfile::add(int index, int64_t n_logit_row, Clock::time_point end) {
  const auto at = static_cast<size_t>(index - first_op_);
  if (sums_[at] == nullptr) return;
  shape_.n_logit = n_logit_row;
  shape_.n_expert_in_use = 0;
  for (size_t e = 1; e < expert_begin_.size(); ++e)
    shape_.n_expert_in_use += expert_begin_[e] > expert_begin_[e - 1] ? 1 : 0;
  const OpCost cost = costs_[at].of(shape_);
  runtime::OpSums& sums = *sums_[at];
  ++sums.n_call;
  sums.seconds += std::chrono::duration<double>(end - op_begin_).count();
  sums.bytes += cost.bytes;
  sums.f32_ops += cost.f32_ops;
  sums.int8_ops += cost.int8_ops;
  sums.int4_ops += cost.int4_ops;
}

}  // namespace infer::cpu
