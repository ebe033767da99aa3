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
  INFER_TRY(exe->allocate(options));
  INFER_TRY(exe->allocate_scratch(options));
  exe->settle_memory(options);
  return exe;
}

Result<void> CpuExecutable::allocate(const runtime::CompileOptions& options) {
  const bool huge = device_.memory().huge_pages;
  INFER_ASSIGN(arena_, Buffer::allocate(plan_.arena_bytes, "activations"));
  pools_.resize(g_.cache_layers.size());
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
    const auto* attn = std::get_if<graph::AttentionAttrs>(&op.attrs);
    if (attn == nullptr) continue;
    const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
    kern::KvPoolView& pool = pools_[static_cast<size_t>(attn->cache_layer)];
    pool = {nullptr,         nullptr,        kv_type(options.type_k), kv_type(options.type_v),
            layer.n_kv_head, layer.head_dim, layer.head_dim_v};
    const int64_t n_block = options.groups[static_cast<size_t>(layer.group)].n_block;
    const auto k_bytes = checked_mul(n_block, kern::k_block_bytes(pool));
    const auto v_bytes = checked_mul(n_block, kern::v_block_bytes(pool));
    if (!k_bytes || !v_bytes)
      return make_error(ErrorCode::kOutOfMemory, "cpu: a KV pool of {} blocks is too large",
                        n_block);
    INFER_ASSIGN(Buffer k, Buffer::allocate(*k_bytes, "the K pool", huge));
    INFER_ASSIGN(Buffer v, Buffer::allocate(*v_bytes, "the V pool", huge));
    if (huge) {
      k.advise_huge();
      v.advise_huge();
    }
    pool.k = k.data();
    pool.v = v.data();
    kv_buffers_.push_back(std::move(k));
    kv_buffers_.push_back(std::move(v));
  }
  rope_tables_.resize(g_.ropes.size());
  const auto n_tok = static_cast<size_t>(plan_.capacity.n_tok);
  for (size_t i = 0; i < g_.ropes.size(); ++i) {
    if (rope_used_[i]) rope_tables_[i].resize(n_tok * static_cast<size_t>(g_.ropes[i].rope_dim));
  }
  q_slot_.resize(n_tok);
  tiles_.reserve(n_tok);
  want_rows_.reserve(n_tok);
  stats_.resize(static_cast<size_t>(plan_.capacity.n_logit_rows));
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
    const int64_t one = group * (2 + layer.head_dim_v) * static_cast<int64_t>(sizeof(float));
    needs.scratch_bytes = std::max(
        needs.scratch_bytes,
        align_up<int64_t>(
            k_.attn_scratch_bytes(attn->n_head, layer.n_kv_head, layer.head_dim, layer.head_dim_v),
            64));
    needs.partial_bytes = std::max(needs.partial_bytes, kern::kAttnRows * one);
    // Spans are shared out only when tiles x KV heads are fewer than twice the threads.
    const int64_t n_unit = 2 * device_.max_threads();
    needs.split_bytes = std::max(needs.split_bytes, n_unit * n_span * kern::kAttnRows * one);
  }
  return needs;
}

Result<void> CpuExecutable::allocate_scratch(const runtime::CompileOptions& options) {
  const AttnNeeds attn = attention_needs(options);
  kernel_scratch_bytes_ = std::max(kernel_scratch_bytes_, attn.scratch_bytes);
  int64_t tile_bytes = attn.partial_bytes;
  for (const LinearPlan& lp : linears_) {
    for (const LinearPlan::Item& item : lp.items) {
      kernel_scratch_bytes_ =
          std::max(kernel_scratch_bytes_, item.w.kernel->scratch_bytes(item.w.k));
      const int64_t n_tile = lp.lora.empty() ? 2 : 3;  // gate, up, and what an adapter adds
      tile_bytes = std::max(tile_bytes,
                            n_tile * kRowTile * item.chunk * static_cast<int64_t>(sizeof(float)));
    }
  }
  tile_bytes = std::max(tile_bytes, kRowTile * lora_rank_ * static_cast<int64_t>(sizeof(float)));
  kernel_scratch_bytes_ = align_up<int64_t>(kernel_scratch_bytes_, 64);
  thread_scratch_bytes_ = align_up<int64_t>(kernel_scratch_bytes_ + tile_bytes, 4096);
  INFER_ASSIGN(act_, Buffer::allocate(act_bytes_, "prepared activations"));
  INFER_ASSIGN(thread_scratch_,
               Buffer::allocate(thread_scratch_bytes_ * device_.max_threads(), "scratch"));
  split_bytes_ = attn.split_bytes;
  INFER_ASSIGN(split_, Buffer::allocate(split_bytes_, "partial attention"));
  return {};
}

/// Counts what may be on huge pages, and locks what steps read, if asked to.
void CpuExecutable::settle_memory(const runtime::CompileOptions& options) {
  PageLock lock;
  weights_.report(g_, &lock, &huge_bytes_);
  for (const std::vector<Buffer>* buffers : {&kv_buffers_, &lora_weights_}) {
    for (const Buffer& b : *buffers) {
      lock.add(b.data(), b.n_bytes());
      if (b.is_huge()) huge_bytes_ += b.n_bytes();
    }
  }
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
  for (const Buffer& b : kv_buffers_) r.kv_bytes += b.n_bytes();
  for (const Buffer* b : {&arena_, &act_, &thread_scratch_, &split_, &lora_x_, &lora_h_})
    r.arena_bytes += b->n_bytes();
  return r;
}

Result<runtime::Ticket> CpuExecutable::submit(const runtime::Step& step,
                                              const runtime::StepIo& io) {
  INFER_CHECK(static_cast<int64_t>(step.rows.size()) <= plan_.capacity.n_tok,
              "{} rows, capacity {}", step.rows.size(), plan_.capacity.n_tok);
  const Job job{[](void* self, const runtime::Step& s, const runtime::StepIo& i) {
                  return static_cast<CpuExecutable*>(self)->execute(s, i);
                },
                this, &step, io};
  return device_.enqueue(job);
}

void CpuExecutable::begin_step(const runtime::Step& step, const runtime::StepIo& io) {
  step_ = &step;
  n_tok_ = static_cast<int64_t>(step.rows.size());
  pool_ = &device_.pool(n_tok_);
  turn_ = {};
  tiles_.clear();
  want_rows_.clear();
  for (int32_t r = 0; r < n_tok_; ++r) {
    const runtime::Row& row = step.rows[static_cast<size_t>(r)];
    q_slot_[static_cast<size_t>(r)] = row.slot;
    if (runtime::wants_logits(row.want)) want_rows_.push_back(r);
    const bool joins =
        !tiles_.empty() && tiles_.back().seq == row.seq && tiles_.back().n < kern::kAttnRows;
    if (joins) {
      ++tiles_.back().n;
    } else {
      tiles_.push_back({r, 1, row.seq});
    }
  }
  find_token_runs();
  for (size_t i = 0; i < g_.ropes.size(); ++i) {
    if (!rope_used_[i]) continue;
    const graph::Rope& rope = g_.ropes[i];
    float* table = rope_tables_[i].data();
    for_rows(n_tok_, rope.rope_dim * 16, [&](int64_t r) {
      const double pos = step.rows[static_cast<size_t>(r)].pos;
      float* out = table + r * rope.rope_dim;
      for (int64_t p = 0; p < rope.rope_dim / 2; ++p) {
        const double angle = pos * rope.inv_freq[static_cast<size_t>(p)];
        out[2 * p] = static_cast<float>(std::cos(angle) * rope.mscale);
        out[2 * p + 1] = static_cast<float>(std::sin(angle) * rope.mscale);
      }
    });
  }
  if (plan_.in != graph::kNoValue) {
    std::memcpy(value(plan_.in), io.residual_in.data(), io.residual_in.size_bytes());
  }
}

Result<void> CpuExecutable::execute(const runtime::Step& step, const runtime::StepIo& io) {
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
  for (int i = plan_.op_begin; i < plan_.tail_begin; ++i) run_op(i);
  if (!io.residual_out.empty()) {
    std::memcpy(io.residual_out.data(), value(plan_.out), io.residual_out.size_bytes());
  }
  if (plan_.tail_begin < plan_.op_end) return run_tail(io);
  return {};
}

Result<void> CpuExecutable::run_tail(const runtime::StepIo& io) {
  const std::span<const int32_t> all = want_rows_;
  const auto turn_rows = static_cast<size_t>(plan_.capacity.n_logit_rows);
  for (size_t begin = 0; begin < all.size(); begin += turn_rows) {
    turn_ = all.subspan(begin, std::min(turn_rows, all.size() - begin));
    find_turn_runs();
    for (int i = plan_.tail_begin; i < plan_.op_end; ++i) run_op(i);
    const auto n = static_cast<int64_t>(turn_.size());
    const MatView<const float> logits{value(plan_.out), n, g_.n_vocab, g_.n_vocab};
    bool has_nan = false;
    for (int64_t r = 0; r < n; ++r) {
      kern::LogitStats s;
      k_.logit_stats(logits.ptr(r), g_.n_vocab, &s);
      stats_[static_cast<size_t>(r)] = {s.max, s.argmax, s.sum_exp};
      has_nan = has_nan || s.has_nan;
    }
    if (has_nan) return diagnose(io);
    if (io.sink != nullptr)
      io.sink->on_logits({turn_, logits, std::span(stats_).first(turn_.size())});
  }
  return {};
}

Error CpuExecutable::diagnose(const runtime::StepIo& io) {
  const auto finite = [&](graph::ValueId v) {
    const int64_t n = n_rows(v) * n_cols(v);
    return std::all_of(value(v), value(v) + n, [](float x) { return std::isfinite(x); });
  };
  const std::span<const int32_t> failed_turn = turn_;
  begin_step(*step_, io);
  if (plan_.in != graph::kNoValue && !finite(plan_.in)) {
    return make_error(ErrorCode::kNumeric,
                      "NaN in the residual stream that came from the stage before");
  }
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    if (i == plan_.tail_begin) {
      turn_ = failed_turn;
      find_turn_runs();
    }
    run_op(i);
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

void CpuExecutable::run_op(int index) {
  const graph::Op& op = g_.ops[static_cast<size_t>(index)];
  switch (op.kind) {
    case graph::OpKind::kEmbed:
      return embed(op);
    case graph::OpKind::kNorm:
      return norm(op);
    case graph::OpKind::kLinearGroup:
      return linear_group(op, linears_[static_cast<size_t>(index - plan_.op_begin)]);
    case graph::OpKind::kQkNormRopeStore:
      return qk_norm_rope_store(op);
    case graph::OpKind::kAttention:
      return attention(op);
    case graph::OpKind::kGatherRows:
      return gather_rows(op);
    case graph::OpKind::kAdd:
      return add(op);
    case graph::OpKind::kGlu:
      return glu(op);
    case graph::OpKind::kHeadNorm:
      return head_norm(op);
    case graph::OpKind::kRope:
      return rope(op);
    case graph::OpKind::kKvStore:
      return kv_store(op);
    case graph::OpKind::kMoeRoute:
      return moe_route(op);
    case graph::OpKind::kMoeGlu:
      return moe_glu(op, linears_[static_cast<size_t>(index - plan_.op_begin)]);
    case graph::OpKind::kMoeDown:
      return moe_down(op, linears_[static_cast<size_t>(index - plan_.op_begin)]);
    case graph::OpKind::kGateAdd:
      return gate_add(op);
  }
}

}  // namespace infer::cpu
