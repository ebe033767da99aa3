#include "core/graph/planner.h"

#include <algorithm>
#include <optional>

#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::graph {
namespace {

/// Where a value lives: ops [def, last], both ends included.
struct Lifetime {
  ValueId value = kNoValue;
  int def = 0, last = 0;
  int64_t bytes = 0, offset = -1;
};

/// The input whose memory an elementwise op may write its output to, or kNoValue.
ValueId inplace_input(const Op& op) {
  switch (op.kind) {
    case OpKind::kLinearGroup:
      return op.as<LinearAttrs>().epilogue == Epilogue::kResidualAdd ? op.in[1] : kNoValue;
    case OpKind::kNorm:
      return op.as<NormAttrs>().residual_after ? op.in[1] : kNoValue;
    case OpKind::kMoeDown:
    case OpKind::kGateAdd:
      return op.in[2];
    case OpKind::kQkNormRopeStore:
    case OpKind::kAdd:
    case OpKind::kGlu:
    case OpKind::kHeadNorm:
    case OpKind::kRope:
      return op.in[0];
    default:
      return kNoValue;
  }
}

class Planner {
 public:
  Planner(const Graph& graph, StagePlan* plan) : g_(graph), plan_(*plan) {
    index_.assign(g_.values.size(), -1);
  }

  Result<void> run() {
    INFER_TRY(collect());
    place();
    return {};
  }

 private:
  Result<void> touch(ValueId v, int at) {
    int& i = index_[static_cast<size_t>(v)];
    if (i >= 0) {
      lives_[static_cast<size_t>(i)].last = std::max(lives_[static_cast<size_t>(i)].last, at);
      return {};
    }
    const Value& value = g_.values[static_cast<size_t>(v)];
    const int64_t n_rows =
        value.rows == Rows::kTok ? plan_.capacity.n_tok : plan_.capacity.n_logit_rows;
    const auto elems = checked_mul(n_rows, value.n_cols);
    const auto bytes = elems ? checked_mul<int64_t>(*elems, 4) : std::nullopt;
    const auto padded = bytes ? checked_align_up(*bytes, kArenaAlign) : std::nullopt;
    if (!padded) {
      return make_error(ErrorCode::kOutOfMemory, "{}: activation [{}, {}] is too large", value.name,
                        n_rows, value.n_cols);
    }
    i = static_cast<int>(lives_.size());
    lives_.push_back({v, at, at, *padded, -1});
    return {};
  }

  Result<void> collect() {
    if (plan_.in != kNoValue) INFER_TRY(touch(plan_.in, plan_.op_begin));
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      const Op& op = g_.ops[static_cast<size_t>(i)];
      // The tail runs several times, so what it reads from outside must outlive it.
      for (ValueId v : op.in)
        INFER_TRY(touch(v, op.kind == OpKind::kGatherRows ? plan_.op_end : i));
      for (ValueId v : op.out) INFER_TRY(touch(v, i));
    }
    INFER_TRY(touch(plan_.out, plan_.op_end));
    return {};
  }

  /// The dying input of the op that defines `life`, when the two may share memory.
  const Lifetime* shareable(const Lifetime& life) const {
    if (life.value == plan_.in) return nullptr;
    const Op& op = g_.ops[static_cast<size_t>(life.def)];
    const ValueId v = inplace_input(op);
    if (v == kNoValue || op.out.empty() || op.out[0] != life.value) return nullptr;
    const Lifetime& src = lives_[static_cast<size_t>(index_[static_cast<size_t>(v)])];
    const bool dies = src.last == life.def && src.bytes == life.bytes;
    const bool only_use = std::count(op.in.begin(), op.in.end(), v) == 1;
    return dies && only_use ? &src : nullptr;
  }

  /// First fit in order of definition.
  void place() {
    std::vector<const Lifetime*> overlapping;
    for (size_t i = 0; i < lives_.size(); ++i) {
      Lifetime& life = lives_[i];
      if (const Lifetime* src = shareable(life)) {
        life.offset = src->offset;
      } else {
        overlapping.clear();
        for (size_t j = 0; j < i; ++j) {
          if (lives_[j].last >= life.def) overlapping.push_back(&lives_[j]);
        }
        std::sort(overlapping.begin(), overlapping.end(),
                  [](const Lifetime* a, const Lifetime* b) { return a->offset < b->offset; });
        life.offset = 0;
        for (const Lifetime* other : overlapping) {
          if (life.offset + life.bytes <= other->offset) break;
          life.offset = std::max(life.offset, other->offset + other->bytes);
        }
      }
      plan_.offset_bytes[static_cast<size_t>(life.value)] = life.offset;
      plan_.arena_bytes = std::max(plan_.arena_bytes, life.offset + life.bytes);
    }
  }

  const Graph& g_;
  StagePlan& plan_;
  std::vector<int> index_;       // value -> lifetime, -1 when untouched
  std::vector<Lifetime> lives_;  // in order of first touch
};

}  // namespace

Result<StagePlan> plan_stage(const Graph& graph, int half_begin, int half_end,
                             const Capacity& capacity) {
  INFER_CHECK(
      half_begin >= 0 && half_begin < half_end && half_end <= static_cast<int>(graph.halves.size()),
      "halves [{}, {}) of {}", half_begin, half_end, graph.halves.size());
  StagePlan plan;
  plan.half_begin = half_begin;
  plan.half_end = half_end;
  const HalfLayer& first = graph.halves[static_cast<size_t>(half_begin)];
  const HalfLayer& last = graph.halves[static_cast<size_t>(half_end - 1)];
  plan.op_begin = first.op_begin;
  plan.op_end = last.op_end;
  plan.tail_begin = plan.op_end;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    if (graph.ops[static_cast<size_t>(i)].kind == OpKind::kGatherRows) {
      plan.tail_begin = i;
      break;
    }
  }
  plan.capacity = capacity;
  plan.in = first.in;
  plan.out = last.out;
  plan.offset_bytes.assign(graph.values.size(), -1);
  INFER_TRY(Planner(graph, &plan).run());
  return plan;
}

}  // namespace infer::graph
