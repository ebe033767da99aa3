#include "core/runtime/executor.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"

namespace infer::runtime {
namespace {

using graph::Graph;
using graph::Op;

/// One line an op of a stage: what, shapes, types, bytes, place in the arena.
std::string dump_op(const Graph& g, const graph::StagePlan& plan, const Op& op,
                    std::string_view where) {
  std::string in, out, weights;
  int64_t bytes = 0;
  const auto shape = [&](graph::ValueId v, bool with_offset) {
    const graph::Value& value = g.values[static_cast<size_t>(v)];
    std::string text = fmt::format(
        "[{}, {}]", value.rows == graph::Rows::kTok ? "n_tok" : "n_logit", value.n_cols);
    if (with_offset) text += fmt::format("@{}", plan.offset_bytes[static_cast<size_t>(v)]);
    return text;
  };
  for (graph::ValueId v : op.in) in += (in.empty() ? "" : " ") + shape(v, false);
  for (graph::ValueId v : op.out) out += (out.empty() ? "" : " ") + shape(v, true);
  for_each_weight(op, [&](graph::WeightId id) {
    const graph::Weight& w = g.weights[static_cast<size_t>(id)];
    weights += fmt::format(" {} {} [{}, {}]", w.name, name_of(w.view.type), w.n(), w.k());
    bytes += w.view.n_bytes;
  });
  return fmt::format("{:<8} {:<20} {:<24} {} -> {}{} {} bytes\n", where, name_of(op.kind), op.name,
                     in, out, weights, bytes);
}

/// Bytes of the weights of a stage, as the file has them.
int64_t weight_bytes(const Graph& graph, const graph::StagePlan& plan) {
  int64_t bytes = 0;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    for_each_weight(graph.ops[static_cast<size_t>(i)], [&](graph::WeightId id) {
      bytes += graph.weights[static_cast<size_t>(id)].view.n_bytes;
    });
  }
  return bytes;
}

/// -1: the op has none.
int cache_layer_of(const Op& op) {
  if (const auto* qkv = std::get_if<graph::QkvAttrs>(&op.attrs)) return qkv->cache_layer;
  if (const auto* attn = std::get_if<graph::AttentionAttrs>(&op.attrs)) return attn->cache_layer;
  if (const auto* store = std::get_if<graph::KvStoreAttrs>(&op.attrs)) return store->cache_layer;
  return -1;
}

class ExecutorImpl final : public Executor {
 public:
  struct Stage {
    std::string where;
    graph::StagePlan plan;
    std::unique_ptr<Executable> exe;
    /// Residual stream into this stage, one for each step in flight; empty for stage 0.
    std::array<std::vector<float>, 2> residual;
  };

  ExecutorImpl(const Graph& graph, std::vector<std::unique_ptr<Stage>> stages)
      : graph_(graph), stages_(std::move(stages)) {}

  Result<Ticket> submit(const Step& step, LogitSink* sink) override {
    Flight& flight = flights_[next_ % flights_.size()];
    INFER_CHECK(!flight.active, "two steps are in flight already");
    // Step before goes on to stage 1 while this one enters stage 0.
    if (Flight& other = flights_[(next_ + 1) % flights_.size()];
        other.active && stages_.size() > 1 && other.stage == 0) {
      if (Result<void> moved = advance(other); !moved.ok()) other.error = std::move(moved).error();
    }
    flight = {&step, sink, next_, 0, 0, false, std::nullopt};
    ++next_;
    INFER_TRY(enter(flight));
    flight.active = true;
    return flight.id;
  }

  Result<void> wait(Ticket ticket) override {
    Flight& flight = flights_[ticket % flights_.size()];
    INFER_CHECK(flight.active && flight.id == ticket, "ticket {} is not in flight", ticket);
    flight.active = false;
    if (flight.error) return *std::move(flight.error);
    while (flight.stage + 1 < stages_.size()) INFER_TRY(advance(flight));
    return stages_[flight.stage]->exe->wait(flight.stage_ticket);
  }

  Result<void> run(const Step& step, LogitSink* sink) override {
    const bool alone = !flights_[0].active && !flights_[1].active;
    if (stages_.size() > 1 || !alone) return Executor::run(step, sink);
    return stages_[0]->exe->run(step, {.residual_in = {}, .residual_out = {}, .sink = sink});
  }

  bool moves_kv() const override { return true; }
  Result<void> export_kv(const KvRange& range, std::span<std::byte> k,
                         std::span<std::byte> v) override {
    return stage_of(range.cache_layer).exe->export_kv(range, k, v);
  }
  Result<void> import_kv(const KvRange& range, std::span<const std::byte> k,
                         std::span<const std::byte> v) override {
    return stage_of(range.cache_layer).exe->import_kv(range, k, v);
  }

  MemoryReport memory() const override {
    MemoryReport all;
    for (const auto& stage : stages_) {
      const MemoryReport r = stage->exe->memory();
      all.weight_bytes += r.weight_bytes;
      all.mapped_bytes += r.mapped_bytes;
      all.kv_bytes += r.kv_bytes;
      all.arena_bytes += r.arena_bytes;
      all.huge_bytes += r.huge_bytes;
      all.locked_bytes += r.locked_bytes;
    }
    return all;
  }

  std::string dump() const override {
    std::string text;
    for (const auto& stage : stages_) {
      text += fmt::format(
          "stage on {}: half-layers [{}, {}), capacity {} tokens, {} rows of logits, arena {} "
          "bytes\n",
          stage->where, stage->plan.half_begin, stage->plan.half_end, stage->plan.capacity.n_tok,
          stage->plan.capacity.n_logit_rows, stage->plan.arena_bytes);
      for (int i = stage->plan.op_begin; i < stage->plan.op_end; ++i) {
        text += dump_op(graph_, stage->plan, graph_.ops[static_cast<size_t>(i)], stage->where);
      }
    }
    return text;
  }

 private:
  struct Flight {
    const Step* step = nullptr;
    LogitSink* sink = nullptr;
    Ticket id = 0;
    size_t stage = 0;
    Ticket stage_ticket = 0;
    bool active = false;
    std::optional<Error> error;
  };

  const Stage& stage_of(int cache_layer) const {
    const auto computes = [&](const auto& stage) {
      const auto first = graph_.ops.begin();
      return std::any_of(first + stage->plan.op_begin, first + stage->plan.op_end,
                         [&](const Op& op) {
                           const auto* attn = std::get_if<graph::AttentionAttrs>(&op.attrs);
                           return attn != nullptr && attn->cache_layer == cache_layer;
                         });
    };
    const auto it = std::find_if(stages_.begin(), stages_.end(), computes);
    INFER_CHECK(it != stages_.end(), "no stage has cache layer {}", cache_layer);
    return **it;
  }

  /// Submits the flight to its stage.
  Result<void> enter(Flight& flight) {
    const size_t lane = flight.id % flights_.size();
    const size_t n = flight.step->rows.size() * static_cast<size_t>(graph_.n_embd);
    StepIo io;
    if (flight.stage > 0)
      io.residual_in = std::span(stages_[flight.stage]->residual[lane]).first(n);
    if (flight.stage + 1 < stages_.size()) {
      io.residual_out = std::span(stages_[flight.stage + 1]->residual[lane]).first(n);
    } else {
      io.sink = flight.sink;
    }
    INFER_ASSIGN(flight.stage_ticket, stages_[flight.stage]->exe->submit(*flight.step, io));
    return {};
  }

  /// Waits for the flight's stage and submits it to the next one.
  Result<void> advance(Flight& flight) {
    INFER_TRY(stages_[flight.stage]->exe->wait(flight.stage_ticket));
    ++flight.stage;
    return enter(flight);
  }

  const Graph& graph_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::array<Flight, 2> flights_;
  Ticket next_ = 0;
};

}  // namespace

std::string describe_refusal(const Backend& backend, const Graph& graph, const Op& op,
                             const CompileOptions& options) {
  // What makes the difference is the reason: the op is asked for again without it.
  std::string why;
  Op plain = op;
  CompileOptions untapped = options;
  untapped.tap = nullptr;
  const auto asked_for = [&] { return backend.supports(graph, plain, untapped); };
  if (options.tap != nullptr && asked_for()) why = " whose inputs are looked at";
  if (auto* linear = std::get_if<graph::LinearAttrs>(&plain.attrs); linear && why.empty()) {
    bool has_adapter = false;
    for (graph::LinearItem& item : linear->items)
      has_adapter |= std::exchange(item.adapter, -1) >= 0;
    if (has_adapter && asked_for()) why = " with a LoRA adapter";
  }
  if (why.empty()) {
    std::vector<DType> types;
    for_each_weight(op, [&](graph::WeightId id) {
      const DType type = graph.weights[static_cast<size_t>(id)].view.type;
      if (std::ranges::find(types, type) != types.end()) return;
      why += fmt::format("{} {}", types.empty() ? " with weights of type" : ",", name_of(type));
      types.push_back(type);
    });
    if (const int at = cache_layer_of(op); at >= 0) {
      const graph::CacheLayer& layer = graph.cache_layers[static_cast<size_t>(at)];
      why += fmt::format("{} K/V of type {}/{} and heads of {}", why.empty() ? " with" : " and",
                         name_of(options.type_k), name_of(options.type_v), layer.head_dim);
    }
  }
  return fmt::format("cannot compute op {} '{}'{}", name_of(op.kind), op.name, why);
}

Result<std::unique_ptr<Executor>> Executor::create(const Graph& graph,
                                                   std::span<const StagePlacement> placement,
                                                   const graph::Capacity& capacity,
                                                   const CompileOptions& options, size_t* failed) {
  INFER_CHECK(!placement.empty(), "no stage");
  size_t unused = 0;
  size_t& at = failed != nullptr ? *failed : unused;
  std::vector<std::unique_ptr<ExecutorImpl::Stage>> stages;
  for (at = 0; at < placement.size(); ++at) {
    const StagePlacement& p = placement[at];
    auto stage = std::make_unique<ExecutorImpl::Stage>();
    stage->where = p.backend->describe().name;
    INFER_ASSIGN(stage->plan, graph::plan_stage(graph, p.half_begin, p.half_end, capacity));
    for (int i = stage->plan.op_begin; i < stage->plan.op_end; ++i) {
      const Op& op = graph.ops[static_cast<size_t>(i)];
      if (p.backend->supports(graph, op, options)) continue;
      return make_error(ErrorCode::kUnsupported, "{}: {}", stage->where,
                        describe_refusal(*p.backend, graph, op, options));
    }
    if (!stages.empty()) {
      for (auto& lane : stage->residual)
        lane.resize(static_cast<size_t>(capacity.n_tok * graph.n_embd));
    }
    stages.push_back(std::move(stage));
  }
  // GPUs first: one that is too full shows before the CPU has repacked its share.
  std::vector<size_t> order(stages.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_partition(order.begin(), order.end(),
                        [&](size_t i) { return placement[i].backend->describe().is_gpu; });
  // Each stage counts from 0; who watches sees one whole.
  int64_t done_before = 0, all = 0;
  for (const auto& stage : stages) all += weight_bytes(graph, stage->plan);
  CompileOptions stage_options = options;
  for (const size_t i : order) {
    at = i;
    const int64_t mine = weight_bytes(graph, stages[at]->plan);
    if (options.progress && stages.size() > 1) {
      stage_options.progress = [&, done_before, mine](int64_t done, int64_t of) {
        const double share = of > 0 ? static_cast<double>(done) / static_cast<double>(of) : 1.0;
        options.progress(done_before + static_cast<int64_t>(share * static_cast<double>(mine)),
                         all);
      };
    }
    INFER_ASSIGN(stages[at]->exe,
                 placement[at].backend->compile(graph, stages[at]->plan, stage_options));
    done_before += mine;
  }
  return std::unique_ptr<Executor>(std::make_unique<ExecutorImpl>(graph, std::move(stages)));
}

Result<void> Executor::export_kv(const KvRange&, std::span<std::byte>, std::span<std::byte>) {
  return make_error(ErrorCode::kUnsupported, "this executor does not give K and V");
}

Result<void> Executor::import_kv(const KvRange&, std::span<const std::byte>,
                                 std::span<const std::byte>) {
  return make_error(ErrorCode::kUnsupported, "this executor does not take K and V");
}

Result<void> Executor::run(const Step& step, LogitSink* sink) {
  INFER_ASSIGN(const Ticket ticket, submit(step, sink));
  return wait(ticket);
}

}  // namespace infer::runtime
