#include "backends/cpu/executable.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::cpu {
namespace {

static_assert(runtime::kBlockTok == kern::kBlockTok);

kern::KvType kv_type(DType type) {
  switch (type) {
    case DType::kF32:
      return kern::KvType::kF32;
    case DType::kF16:
      return kern::KvType::kF16;
    case DType::kQ8_0:
      return kern::KvType::kQ8_0;
    case DType::kQ4_0:
      return kern::KvType::kQ4_0;
    default:
      INFER_CHECK(false, "KV type {}", static_cast<int>(type));
  }
}

}  // namespace

Result<std::unique_ptr<CpuExecutable>> CpuExecutable::create(const graph::Graph& graph,
                                                             const graph::StagePlan& plan,
                                                             const runtime::CompileOptions& options,
                                                             Device& device) {
  std::unique_ptr<CpuExecutable> exe(new CpuExecutable(graph, plan, device));
  INFER_ASSIGN(exe->weights_, StageWeights::load(graph, plan, options, device));
  exe->plan_linears();
  if (options.tap != nullptr) exe->plan_taps(*options.tap);
  INFER_TRY(exe->load_adapters(options));
  exe->plan_norms();
  INFER_TRY(exe->allocate(options));
  INFER_TRY(exe->allocate_scratch(options));
  exe->settle_memory(options);
  if (options.profile != nullptr) {
    exe->profile_ = std::make_unique<StageProfile>(graph, plan, exe->linears_, exe->pools_,
                                                   exe->moe_begin_, *options.profile);
  }
  return exe;
}

Result<void> CpuExecutable::allocate(const runtime::CompileOptions& options) {
  INFER_ASSIGN(arena_, Buffer::allocate(plan_.arena_bytes, "activations"));
  rope_used_.assign(g_.ropes.size(), false);
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const graph::Op& op = g_.ops[static_cast<size_t>(i)];
    if (const auto* qkv = std::get_if<graph::QkvAttrs>(&op.attrs);
        qkv != nullptr && qkv->rope >= 0) {
      rope_used_[static_cast<size_t>(qkv->rope)] = true;
    }
    if (const auto* rope = std::get_if<graph::RopeAttrs>(&op.attrs))
      rope_used_[static_cast<size_t>(rope->rope)] = true;
    if (const auto* moe = std::get_if<graph::MoeLinearAttrs>(&op.attrs)) {
      const int64_t n_pair = plan_.capacity.n_tok * moe->n_used;
      moe_begin_.resize(static_cast<size_t>(moe->n_expert) + 1);
      moe_pairs_.resize(static_cast<size_t>(n_pair));
      if (moe_out_.n_bytes() == 0) {
        INFER_ASSIGN(moe_out_, Buffer::allocate(n_pair * g_.n_embd * 4, "the outputs of experts"));
      }
    }
  }
  INFER_TRY(allocate_kv(options));
  rope_tables_.resize(g_.ropes.size());
  const auto n_tok = static_cast<size_t>(plan_.capacity.n_tok);
  for (size_t i = 0; i < g_.ropes.size(); ++i) {
    if (rope_used_[i]) rope_tables_[i].resize(n_tok * static_cast<size_t>(g_.ropes[i].rope_dim));
  }
  q_slot_.resize(n_tok);
  tiles_.reserve(n_tok);
  want_rows_.reserve(n_tok);
  kernel_stats_.resize(static_cast<size_t>(plan_.capacity.n_logit_rows));
  stats_.resize(kernel_stats_.size());
  return {};
}

/// All pools in one buffer: that of one layer is often smaller than a huge page, and attention
/// reads a pool in pieces of a few KiB, each of which would be a page of its own. (Blocks are
/// multiples of 64 bytes.)
Result<void> CpuExecutable::allocate_kv(const runtime::CompileOptions& options) {
  struct Place {
    kern::KvPoolView* pool;
    int64_t k, v;
  };
  std::vector<Place> places;
  int64_t n_bytes = 0;
  pools_.resize(g_.cache_layers.size());
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const auto* attn = std::get_if<graph::AttentionAttrs>(&g_.ops[static_cast<size_t>(i)].attrs);
    if (attn == nullptr) continue;
    const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
    kern::KvPoolView& pool = pools_[static_cast<size_t>(attn->cache_layer)];
    pool = {nullptr,         nullptr,        kv_type(options.type_k), kv_type(options.type_v),
            layer.n_kv_head, layer.head_dim, layer.head_dim_v};
    const int64_t n_block = options.groups[static_cast<size_t>(layer.group)].n_block;
    const auto k_bytes = checked_mul(n_block, kern::k_block_bytes(pool));
    const auto v_bytes = checked_mul(n_block, kern::v_block_bytes(pool));
    const auto v_at = k_bytes ? checked_add(n_bytes, *k_bytes) : std::nullopt;
    const auto end = v_at && v_bytes ? checked_add(*v_at, *v_bytes) : std::nullopt;
    if (!end)
      return make_error(ErrorCode::kOutOfMemory, "cpu: a KV pool of {} blocks is too large",
                        n_block);
    places.push_back({&pool, n_bytes, *v_at});
    n_bytes = *end;
  }
  INFER_ASSIGN(kv_, Buffer::allocate(n_bytes, "the KV pools", device_.memory().huge_pages));
  for (const Place& place : places) {
    place.pool->k = kv_.data() + place.k;
    place.pool->v = kv_.data() + place.v;
  }
  return {};
}

CpuExecutable::AttnNeeds CpuExecutable::attention_needs(
    const runtime::CompileOptions& options) const {
  AttnNeeds needs;
  const int64_t n_span = ceil_div(options.n_ctx, kern::kSpanSlots) + 1;
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const auto* attn = std::get_if<graph::AttentionAttrs>(&g_.ops[static_cast<size_t>(i)].attrs);
    if (attn == nullptr) continue;
    const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
    const int64_t group = attn->n_head / layer.n_kv_head;
    needs.rows = std::min(needs.rows, kern::attn_rows(group));
    needs.kv_heads = std::min<int64_t>(needs.kv_heads, layer.n_kv_head);
    const int64_t one = group * (2 + layer.head_dim_v) * static_cast<int64_t>(sizeof(float));
    needs.scratch_bytes = std::max(
        needs.scratch_bytes,
        align_up<int64_t>(
            k_.attn_scratch_bytes(attn->n_head, layer.n_kv_head, layer.head_dim, layer.head_dim_v),
            64));
    needs.partial_bytes = std::max(needs.partial_bytes, kern::attn_rows(group) * one);
    // Spans are shared out only when tiles x KV heads are fewer than twice the threads.
    const int64_t n_unit = 2 * device_.max_threads();
    needs.split_bytes = std::max(needs.split_bytes, n_unit * n_span * kMinRowTile * one);
  }
  return needs;
}

Result<void> CpuExecutable::allocate_scratch(const runtime::CompileOptions& options) {
  const AttnNeeds attn = attention_needs(options);
  kernel_scratch_bytes_ = std::max(kernel_scratch_bytes_, attn.scratch_bytes);
  int64_t tile_bytes = attn.partial_bytes;
  for (const LinearPlan& lp : linears_) {
    if (lp.norm >= 0) tile_bytes = std::max(tile_bytes, lp.items[0].w.k * 4);
    for (const LinearPlan::Item& item : lp.items) {
      kernel_scratch_bytes_ =
          std::max(kernel_scratch_bytes_, item.w.kernel->scratch_bytes(item.w.k));
      const int64_t n_tile = lp.lora.empty() ? 2 : 3;  // gate, up, and what an adapter adds
      tile_bytes = std::max(tile_bytes,
                            n_tile * kRowTile * item.tile_n * static_cast<int64_t>(sizeof(float)));
    }
  }
  tile_bytes = std::max(tile_bytes, kRowTile * lora_rank_ * static_cast<int64_t>(sizeof(float)));
  kernel_scratch_bytes_ = align_up<int64_t>(kernel_scratch_bytes_, 64);
  thread_scratch_bytes_ =
      align_up<int64_t>(kernel_scratch_bytes_ + tile_bytes + own_act_bytes_, 4096);
  INFER_ASSIGN(act_, Buffer::allocate(act_bytes_, "prepared activations"));
  INFER_ASSIGN(thread_scratch_,
               Buffer::allocate(thread_scratch_bytes_ * device_.max_threads(), "scratch"));
  split_bytes_ = attn.split_bytes;
  attn_rows_ = attn.rows;
  attn_kv_heads_ = attn.kv_heads;
  INFER_ASSIGN(split_, Buffer::allocate(split_bytes_, "partial attention"));
  return {};
}

/// Counts what may be on huge pages, and locks what steps read, if asked to.
void CpuExecutable::settle_memory(const runtime::CompileOptions& options) {
  PageLock lock;
  weights_.report(g_, &lock, &huge_bytes_);
  const auto add = [&](const Buffer& b) {
    lock.add(b.data(), b.n_bytes());
    if (b.is_huge()) huge_bytes_ += b.n_bytes();
  };
  add(kv_);
  for (const Buffer& b : lora_weights_) add(b);
  if (!device_.memory().lock) return;
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const auto* embed = std::get_if<graph::EmbedAttrs>(&g_.ops[static_cast<size_t>(i)].attrs);
    if (embed == nullptr) continue;
    const TensorView& table = g_.weights[static_cast<size_t>(embed->table)].view;
    lock.add(table.data, table.n_bytes);
  }
  const std::string refused = lock.lock();
  locked_bytes_ = lock.locked_bytes();
  if (!refused.empty() && options.warn) options.warn(refused);
}

runtime::MemoryReport CpuExecutable::memory() const {
  runtime::MemoryReport r;
  r.huge_bytes = huge_bytes_;
  r.locked_bytes = locked_bytes_;
  r.weight_bytes = weights_.own_bytes();
  for (const Buffer& b : lora_weights_) r.weight_bytes += b.n_bytes();
  r.mapped_bytes = weights_.mapped_bytes();
  r.kv_bytes = kv_.n_bytes();
  for (const Buffer* b : {&arena_, &act_, &thread_scratch_, &split_, &lora_x_, &lora_h_})
    r.arena_bytes += b->n_bytes();
  return r;
}

Job CpuExecutable::job_of(const runtime::Step& step, const runtime::StepIo& io) {
  INFER_CHECK(static_cast<int64_t>(step.rows.size()) <= plan_.capacity.n_tok,
              "{} rows, capacity {}", step.rows.size(), plan_.capacity.n_tok);
  return {[](void* self, const runtime::Step& s, const runtime::StepIo& i) {
            return static_cast<CpuExecutable*>(self)->execute(s, i);
          },
          this, &step, io};
}

Result<runtime::Ticket> CpuExecutable::submit(const runtime::Step& step,
                                              const runtime::StepIo& io) {
  return device_.enqueue(job_of(step, io));
}

Result<void> CpuExecutable::run(const runtime::Step& step, const runtime::StepIo& io) {
  return device_.run(job_of(step, io));
}

/// Rows of a query tile: the more, the less it costs to bring K and V to f32; but no thread should
/// go without a tile, nor wait long for the last one.
int64_t CpuExecutable::query_tile_rows() const {
  int64_t n = attn_rows_;
  while (n > kMinRowTile && ceil_div(n_tok_, n) * attn_kv_heads_ < 4 * pool_->n_threads()) n /= 2;
  return n;
}

void CpuExecutable::begin_step(const runtime::Step& step, const runtime::StepIo& io) {
  step_ = &step;
  op_by_op_ = false;
  n_tok_ = static_cast<int64_t>(step.rows.size());
  pool_ = &device_.pool(n_tok_);
  const int64_t n_tile_row = query_tile_rows();
  tiles_.clear();
  want_rows_.clear();
  for (int32_t r = 0; r < n_tok_; ++r) {
    const runtime::Row& row = step.rows[static_cast<size_t>(r)];
    q_slot_[static_cast<size_t>(r)] = row.slot;
    if (runtime::wants_logits(row.want)) want_rows_.push_back(r);
    const bool joins =
        !tiles_.empty() && tiles_.back().seq == row.seq && tiles_.back().n < n_tile_row;
    if (joins) {
      ++tiles_.back().n;
    } else {
      tiles_.push_back({r, 1, row.seq});
    }
  }
  find_token_runs();
  if (plan_.in != graph::kNoValue) {
    std::memcpy(value(plan_.in), io.residual_in.data(), io.residual_in.size_bytes());
  }
}

void CpuExecutable::fill_rope_tables(Team& team) {
  for (size_t i = 0; i < g_.ropes.size(); ++i) {
    if (!rope_used_[i]) continue;
    const graph::Rope& rope = g_.ropes[i];
    float* table = rope_tables_[i].data();
    for_rows(team, n_tok_, rope.rope_dim * 16, [&](int64_t r) {
      const double pos = step_->rows[static_cast<size_t>(r)].pos;
      float* out = table + r * rope.rope_dim;
      for (int64_t p = 0; p < rope.rope_dim / 2; ++p) {
        const double angle = pos * rope.inv_freq[static_cast<size_t>(p)];
        out[2 * p] = static_cast<float>(std::cos(angle) * rope.mscale);
        out[2 * p + 1] = static_cast<float>(std::sin(angle) * rope.mscale);
      }
    });
  }
}

Result<void> CpuExecutable::execute(const runtime::Step& step, const runtime::StepIo& io) {
  const TimedStep timed(profile_.get(), step);
  for (const runtime::BlockCopy& copy : step.copies) {
    for (int id : g_.cache_groups[static_cast<size_t>(copy.group)].cache_layers) {
      const kern::KvPoolView& pool = pools_[static_cast<size_t>(id)];
      if (pool.k == nullptr) continue;
      const int64_t k_bytes = kern::k_block_bytes(pool);
      const int64_t v_bytes = kern::v_block_bytes(pool);
      std::memcpy(pool.k + copy.dst * k_bytes, pool.k + copy.src * k_bytes,
                  static_cast<size_t>(k_bytes));
      std::memcpy(pool.v + copy.dst * v_bytes, pool.v + copy.src * v_bytes,
                  static_cast<size_t>(v_bytes));
    }
  }
  begin_step(step, io);
  begin_turn(0);
  run_ops(plan_.op_begin, turn_.empty() ? plan_.tail_begin : plan_.op_end);
  if (!io.residual_out.empty()) {
    std::memcpy(io.residual_out.data(), value(plan_.out), io.residual_out.size_bytes());
  }
  for (size_t done = turn_.size(); !turn_.empty(); done += turn_.size()) {
    INFER_TRY(deliver_turn(io));
    begin_turn(done);
    if (!turn_.empty()) run_ops(plan_.tail_begin, plan_.op_end);
  }
  return {};
}

/// The tail takes the wanted rows in turns; one that begins behind the last row is empty.
void CpuExecutable::begin_turn(size_t first) {
  const std::span<const int32_t> all = want_rows_;
  const auto most = static_cast<size_t>(plan_.capacity.n_logit_rows);
  turn_ = plan_.tail_begin < plan_.op_end ? all.subspan(first, std::min(most, all.size() - first))
                                          : std::span<const int32_t>();
  find_turn_runs();
}

/// Runs ops [begin, end) as one run of the team, and looks at the logits if they come out.
void CpuExecutable::run_ops(int begin, int end) {
  pool_->run_team([&](Team& team) {
    if (begin == plan_.op_begin) fill_rope_tables(team);
    for (int i = begin; i < end; ++i) run_op(i, team);
    if (end > plan_.tail_begin) find_stats(team);
  });
}

void CpuExecutable::find_stats(Team& team) {
  for_rows(team, static_cast<int64_t>(turn_.size()), g_.n_vocab, [&](int64_t r) {
    k_.logit_stats(value(plan_.out) + r * g_.n_vocab, g_.n_vocab,
                   &kernel_stats_[static_cast<size_t>(r)]);
  });
}

/// Hands the logits of the turn over.
Result<void> CpuExecutable::deliver_turn(const runtime::StepIo& io) {
  const auto n = static_cast<int64_t>(turn_.size());
  for (size_t r = 0; r < turn_.size(); ++r) {
    const kern::LogitStats& s = kernel_stats_[r];
    if (s.has_nan) return diagnose(io);
    stats_[r] = {s.max, s.argmax, s.sum_exp};
  }
  const MatView<const float> logits{value(plan_.out), n, g_.n_vocab, g_.n_vocab};
  if (io.sink != nullptr)
    io.sink->on_logits({turn_, logits, std::span(stats_).first(turn_.size())});
  return {};
}

Error CpuExecutable::diagnose(const runtime::StepIo& io) {
  const auto finite = [&](graph::ValueId v) {
    const int64_t n = n_rows(v) * n_cols(v);
    return std::all_of(value(v), value(v) + n, [](float x) { return std::isfinite(x); });
  };
  const std::span<const int32_t> failed_turn = turn_;
  begin_step(*step_, io);
  op_by_op_ = true;
  if (plan_.in != graph::kNoValue && !finite(plan_.in)) {
    return make_error(ErrorCode::kNumeric,
                      "NaN in the residual stream that came from the stage before");
  }
  turn_ = failed_turn;
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    pool_->run_team([&](Team& team) { run_op(i, team); });
    const graph::Op& op = g_.ops[static_cast<size_t>(i)];
    for (graph::ValueId v : op.out) {
      if (!finite(v)) {
        return make_error(ErrorCode::kNumeric,
                          "NaN or infinity in the output of layer {}, op {} '{}'", op.il,
                          name_of(op.kind), op.name);
      }
    }
  }
  return make_error(ErrorCode::kNumeric,
                    "NaN in the logits, not found again when the step was repeated");
}

void CpuExecutable::run_op(int index, Team& team) {
  const TimedOp timed(team.thread() == 0 ? profile_.get() : nullptr, index, turn_.size());
  const graph::Op& op = g_.ops[static_cast<size_t>(index)];
  switch (op.kind) {
    case graph::OpKind::kEmbed:
      return embed(op, team);
    case graph::OpKind::kNorm:
      if (norm_fused_[static_cast<size_t>(index - plan_.op_begin)] && !op_by_op_) return;
      return norm(op, team);
    case graph::OpKind::kLinearGroup:
      return linear_group(op, linears_[static_cast<size_t>(index - plan_.op_begin)], team);
    case graph::OpKind::kQkNormRopeStore:
      return qk_norm_rope_store(op, team);
    case graph::OpKind::kAttention:
      return attention(op, team);
    case graph::OpKind::kGatherRows:
      return gather_rows(op, team);
    case graph::OpKind::kAdd:
      return add(op, team);
    case graph::OpKind::kGlu:
      return glu(op, team);
    case graph::OpKind::kHeadNorm:
      return head_norm(op, team);
    case graph::OpKind::kRope:
      return rope(op, team);
    case graph::OpKind::kKvStore:
      return kv_store(op, team);
    case graph::OpKind::kMoeRoute:
      return moe_route(op, team);
    case graph::OpKind::kMoeGlu:
      return moe_glu(op, linears_[static_cast<size_t>(index - plan_.op_begin)], team);
    case graph::OpKind::kMoeDown:
      return moe_down(op, linears_[static_cast<size_t>(index - plan_.op_begin)], team);
    case graph::OpKind::kGateAdd:
      return gate_add(op, team);
  }
}

}  // namespace infer::cpu
