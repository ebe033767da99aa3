#include "backends/cuda/layout.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "backends/cuda/memory.h"
#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/row_ops.h"

namespace infer::cuda {
namespace {

using graph::Graph;
using graph::Op;
using graph::OpKind;
using graph::StagePlan;
using graph::ValueId;

constexpr int64_t kMaxRows = 65535;  // of a grid's second and third dimension
constexpr int kQ8Rows = 64;
constexpr int64_t kCublasBytes = int64_t{32} << 20;  // what NVIDIA recommends for the largest GPUs
// Assumed: its kernels and handle; of a launch in a graph, node and arguments.
constexpr int64_t kLibraryBytes = int64_t{64} << 20;
constexpr int64_t kLaunchBytes = 4096;

bool is_float(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

class Planner {
 public:
  Planner(const Graph& graph, const StagePlan& plan, const runtime::CompileOptions& options,
          const Device& device, StageLayout* out)
      : g_(graph), plan_(plan), options_(options), device_(device), out_(*out) {
    policy_ = {options.precise, /*has_cublas=*/false, device.has_bf16()};
  }

  Result<void> run() {
    if (plan_.capacity.n_tok > kMaxRows)
      return make_error(ErrorCode::kUnsupported,
                        "cuda:{}: a batch of {} tokens is too large, at most {} (-b)",
                        device_.index, plan_.capacity.n_tok, kMaxRows);
    INFER_ASSIGN(out_.weights, plan_weights(g_, plan_));
    fold_norms();
    place_values();
    INFER_TRY(place_pools());
    INFER_ASSIGN(out_.step, StepLayout::plan(g_, plan_.capacity, options_.n_ctx, tile_rows()));
    place_linear();
    place_attention();
    place_experts();
    place_tables();
    place_results();
    out_.scratch.step = parts_.take(out_.step.n_bytes);
    out_.scratch.n_bytes = parts_.n_bytes();
    if (out_.scratch.cublas >= 0) out_.library_bytes = kLibraryBytes;
    // With and without candidates; an op is about a launch.
    out_.graph_bytes = int64_t{2} * std::size(kBuckets) * n_op() * kLaunchBytes;
    if (!plan_.first() || plan_.tail_begin == plan_.op_end)
      out_.residual_bytes = plan_.capacity.n_tok * g_.n_embd * 4;
    return {};
  }

 private:
  const Op& op(int i) const { return g_.ops[static_cast<size_t>(i)]; }
  int n_op() const { return plan_.op_end - plan_.op_begin; }
  int64_t n_rows(ValueId v) const {
    const bool tok = g_.values[static_cast<size_t>(v)].rows == graph::Rows::kTok;
    return tok ? plan_.capacity.n_tok : plan_.capacity.n_logit_rows;
  }
  int64_t n_cols(ValueId v) const { return g_.values[static_cast<size_t>(v)].n_cols; }
  int64_t value_bytes(ValueId v) const { return n_rows(v) * n_cols(v) * 4; }
  DType type_of(graph::WeightId id) const { return g_.weights[static_cast<size_t>(id)].view.type; }

  /// The op that reads what op i makes, if it is a linear_group and the only one to; else -1.
  int only_reader(int i) const {
    const ValueId y = op(i).out[0];
    if (y == plan_.out) return -1;
    int reader = -1;
    for (int j = i + 1; j < plan_.op_end; ++j) {
      const auto n = std::count(op(j).in.begin(), op(j).in.end(), y);
      if (n == 0) continue;
      if (reader >= 0 || n > 1 || op(j).kind != OpKind::kLinearGroup || op(j).in[0] != y) return -1;
      reader = j;
    }
    return reader;
  }

  void fold_norms() {
    out_.folded_norm.assign(static_cast<size_t>(n_op()), -1);
    out_.is_folded.assign(static_cast<size_t>(n_op()), false);
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      if (op(i).kind != OpKind::kNorm || op(i).as<graph::NormAttrs>().residual_after) continue;
      const int reader = only_reader(i);
      if (reader < 0) continue;
      out_.folded_norm[static_cast<size_t>(reader - plan_.op_begin)] = i - plan_.op_begin;
      out_.is_folded[static_cast<size_t>(i - plan_.op_begin)] = true;
    }
  }

  bool overlap(ValueId a, ValueId b) const {
    const int64_t at_a = plan_.offset_bytes[static_cast<size_t>(a)];
    const int64_t at_b = plan_.offset_bytes[static_cast<size_t>(b)];
    return at_a < at_b + value_bytes(b) && at_b < at_a + value_bytes(a);
  }

  /// As the plan says, but the input of a folded norm is read later than the plan knows: where
  /// something is written over it until then, it moves to a place of its own.
  void place_values() {
    out_.value_at = plan_.offset_bytes;
    out_.arena_bytes = plan_.arena_bytes;
    std::set<ValueId> moved;
    for (int j = plan_.op_begin; j < plan_.op_end; ++j) {
      const int norm = out_.folded_norm[static_cast<size_t>(j - plan_.op_begin)];
      if (norm < 0) continue;
      const ValueId x = op(plan_.op_begin + norm).in[0];
      bool overwritten = false;
      for (int i = plan_.op_begin + norm + 1; i <= j; ++i)
        overwritten = overwritten || std::any_of(op(i).out.begin(), op(i).out.end(),
                                                 [&](ValueId v) { return overlap(x, v); });
      if (!overwritten || !moved.insert(x).second) continue;
      out_.value_at[static_cast<size_t>(x)] = align_up(out_.arena_bytes, kPartAlign);
      out_.arena_bytes = out_.value_at[static_cast<size_t>(x)] + value_bytes(x);
    }
  }

  Result<void> place_pools() {
    Parts parts;
    out_.pools.resize(g_.cache_layers.size());
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      const auto* attn = std::get_if<graph::AttentionAttrs>(&op(i).attrs);
      if (attn == nullptr) continue;
      const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
      PoolPlace& pool = out_.pools[static_cast<size_t>(attn->cache_layer)];
      pool.k_block_bytes = layer.n_kv_head * kv_head_bytes(options_.type_k, layer.head_dim);
      pool.v_block_bytes = layer.n_kv_head * kv_head_bytes(options_.type_v, layer.head_dim);
      pool.n_block = options_.groups[static_cast<size_t>(layer.group)].n_block;
      const auto k = checked_mul(pool.n_block, pool.k_block_bytes);
      const auto v = checked_mul(pool.n_block, pool.v_block_bytes);
      const auto both = k && v ? checked_add(*k, *v) : std::nullopt;
      if (!both || !checked_add<int64_t>(parts.n_bytes() + 2 * kPartAlign, *both))
        return make_error(ErrorCode::kOutOfMemory, "cuda: a KV pool of {} blocks is too large",
                          pool.n_block);
      pool.k = parts.take(*k);
      pool.v = parts.take(*v);
    }
    out_.kv_bytes = parts.n_bytes();
    return {};
  }

  std::vector<int> tile_rows() const {
    std::set<int> sizes;
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      const auto* attn = std::get_if<graph::AttentionAttrs>(&op(i).attrs);
      if (attn == nullptr) continue;
      const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
      sizes.insert(query_tile_rows(static_cast<int>(layer.head_dim),
                                   static_cast<int>(attn->n_head / layer.n_kv_head)));
    }
    return {sizes.begin(), sizes.end()};
  }

  /// Elements that a form of prepared activations has at most.
  struct Forms {
    int64_t f32 = 0, f16 = 0, bf16 = 0, q8 = 0;
  };

  void count_form(LinearPath path, DType type, int64_t n, Forms* forms) const {
    int64_t* form = nullptr;
    switch (path) {
      case LinearPath::kGemv:
        return;
      case LinearPath::kF32:
        form = &forms->f32;
        break;
      case LinearPath::kGemmQ8:
        form = &forms->q8;
        break;
      case LinearPath::kGemmHalf:
      case LinearPath::kCublas:
        form = takes_bf16(type, policy_) ? &forms->bf16 : &forms->f16;
        break;
    }
    *form = std::max(*form, n);
  }

  void count_forms(DType type, int64_t m, int64_t k, Forms* forms) const {
    for (const bool cublas : {false, true}) {
      LinearPolicy policy = policy_;
      policy.has_cublas = cublas;
      count_form(linear_path(type, static_cast<int>(m), policy), type, m * k, forms);
    }
  }

  void count_expert_forms(const Op& op, const graph::MoeLinearAttrs& moe, Forms* forms) const {
    const bool down = moe.down != graph::kNoWeight;
    const DType type = type_of(down ? moe.down : moe.gate);
    // Of a token all its experts' rows in the case of `down`. The path changes at this number of
    // rows, and with it the form.
    const int64_t k = n_cols(op.in[0]);
    const int64_t q8_rows = kQ8Rows * moe.n_expert / moe.n_used;
    for (const int64_t m : {q8_rows, plan_.capacity.n_tok}) {
      const int64_t n_row = std::min(m, plan_.capacity.n_tok);
      count_form(expert_path(type, n_row * moe.n_used, moe.n_expert, policy_), type, n_row * k,
                 forms);
    }
  }

  void place_linear() {
    Forms forms;
    int64_t glu_bytes = 0;
    bool has_half = false;
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      if (const auto* moe = std::get_if<graph::MoeLinearAttrs>(&op(i).attrs))
        count_expert_forms(op(i), *moe, &forms);
      const auto* linear = std::get_if<graph::LinearAttrs>(&op(i).attrs);
      if (linear == nullptr) continue;
      const int64_t n_row = std::min(n_rows(op(i).in[0]), plan_.capacity.n_tok);
      const int64_t k = n_cols(op(i).in[0]);
      for (const graph::LinearItem& item : linear->items) {
        const DType type = type_of(item.weight);
        has_half = has_half || type == DType::kF16 || type == DType::kBF16;
        // The path changes at these numbers of rows only.
        for (const int64_t m : {int64_t{kGemvRows}, int64_t{kQ8Rows}, n_row})
          count_forms(type, std::min(m, n_row), k, &forms);
      }
      if (linear->epilogue == graph::Epilogue::kGlu && has_half)
        glu_bytes = std::max(glu_bytes, n_row * n_cols(op(i).out[0]) * 4);
    }
    ScratchLayout& s = out_.scratch;
    if (forms.f32 > 0) s.act_f32 = parts_.take(forms.f32 * 4);
    if (forms.f16 > 0) s.act_f16 = parts_.take(forms.f16 * 2);
    if (forms.bf16 > 0) s.act_bf16 = parts_.take(forms.bf16 * 2);
    if (forms.q8 > 0) s.act_q = parts_.take(forms.q8);
    if (forms.q8 > 0) s.act_ds = parts_.take(forms.q8 / 32 * int64_t{sizeof(float2)});
    if (has_half && !options_.precise && plan_.capacity.n_tok >= kHalfRows) {
      s.cublas_bytes = kCublasBytes;
      s.cublas = parts_.take(s.cublas_bytes);
      s.up = parts_.take(glu_bytes);
    }
  }

  void place_attention() {
    int64_t n_float = 0;
    int64_t n_counter = 0;
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      const auto* attn = std::get_if<graph::AttentionAttrs>(&op(i).attrs);
      if (attn == nullptr) continue;
      const graph::CacheLayer& layer = g_.cache_layers[static_cast<size_t>(attn->cache_layer)];
      const DecodeHeads heads = {static_cast<int>(layer.head_dim), static_cast<int>(attn->n_head),
                                 static_cast<int>(layer.n_kv_head), device_.n_multiprocessor};
      const int64_t visible =
          attn->window > 0 ? std::min(attn->window, options_.n_ctx) : options_.n_ctx;
      const auto m = static_cast<int>(plan_.capacity.n_tok);
      n_float = std::max(n_float, attention_partial_floats(m, heads.n_head, heads.head_dim,
                                                           attention_split(heads, visible)));
      n_counter = std::max(n_counter, attention_counters(m, heads.n_head, heads.n_kv_head));
    }
    if (n_counter == 0) return;
    out_.scratch.attention_partial = parts_.take(n_float * 4);
    out_.scratch.counter_bytes = n_counter * 4;
    out_.scratch.attention_counter = parts_.take(out_.scratch.counter_bytes);
  }

  void place_experts() {
    int64_t n_pair = 0;
    int64_t n_expert = 0;
    int64_t out_bytes = 0;
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      const auto* moe = std::get_if<graph::MoeLinearAttrs>(&op(i).attrs);
      if (moe == nullptr) continue;
      n_pair = std::max(n_pair, plan_.capacity.n_tok * moe->n_used);
      n_expert = std::max(n_expert, moe->n_expert);
      if (moe->down != graph::kNoWeight)
        out_bytes = std::max(out_bytes, plan_.capacity.n_tok * moe->n_used * g_.n_embd * 4);
    }
    if (n_pair == 0) return;
    out_.scratch.expert_begin = parts_.take((n_expert + 1) * 4);
    out_.scratch.expert_pair = parts_.take(n_pair * 4);
    if (out_bytes > 0) out_.scratch.expert_out = parts_.take(out_bytes);
  }

  void place_tables() {
    ScratchLayout& s = out_.scratch;
    s.cos_sin.assign(g_.ropes.size(), -1);
    s.alibi_slopes.assign(static_cast<size_t>(n_op()), -1);
    for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
      if (const auto* qkv = std::get_if<graph::QkvAttrs>(&op(i).attrs);
          qkv != nullptr && qkv->rope >= 0) {
        int64_t& at = s.cos_sin[static_cast<size_t>(qkv->rope)];
        const int64_t pairs = g_.ropes[static_cast<size_t>(qkv->rope)].rope_dim / 2;
        if (at < 0) at = parts_.take(options_.n_ctx * pairs * int64_t{sizeof(float2)});
      }
      if (const auto* attn = std::get_if<graph::AttentionAttrs>(&op(i).attrs);
          attn != nullptr && !attn->alibi_slopes.empty())
        s.alibi_slopes[static_cast<size_t>(i - plan_.op_begin)] = parts_.take(attn->n_head * 4);
    }
  }

  void place_results() {
    if (plan_.tail_begin == plan_.op_end) return;
    ScratchLayout& s = out_.scratch;
    const int64_t m = std::min(plan_.capacity.n_logit_rows, plan_.capacity.n_tok);
    const int64_t n_top = std::min<int64_t>(kMaxTop, g_.n_vocab);
    s.results_bytes = m * (int64_t{sizeof(RowStats)} + n_top * 8);
    s.results = parts_.take(s.results_bytes);
    // More rows and more candidates take more.
    s.sample = parts_.take(sample_scratch_bytes(static_cast<int>(m), static_cast<int>(g_.n_vocab),
                                                static_cast<int>(n_top)));
    s.sample_counter_bytes = m * 4;
    s.sample_counter = parts_.take(s.sample_counter_bytes);
    out_.logits_bytes = m * g_.n_vocab * 4;
  }

  const Graph& g_;
  const StagePlan& plan_;
  const runtime::CompileOptions& options_;
  const Device& device_;
  StageLayout& out_;
  LinearPolicy policy_;
  Parts parts_;  // of the scratch
};

}  // namespace

LinearPath linear_path(DType type, int m, const LinearPolicy& policy) {
  if (policy.precise && !is_float(type)) return LinearPath::kF32;
  if (m <= kGemvRows) return LinearPath::kGemv;
  if (policy.precise || type == DType::kF32) return LinearPath::kF32;
  if (m <= kQ8Rows && has_gemm_q8(type)) return LinearPath::kGemmQ8;
  const bool half = type == DType::kF16 || (type == DType::kBF16 && policy.has_bf16);
  if (half && policy.has_cublas && m >= kHalfRows) return LinearPath::kCublas;
  if (has_gemm_half(type)) return LinearPath::kGemmHalf;
  return LinearPath::kF32;
}

LinearPath expert_path(DType type, int64_t n_pair, int64_t n_expert, LinearPolicy policy) {
  policy.has_cublas = false;
  const LinearPath path = linear_path(type, static_cast<int>(ceil_div(n_pair, n_expert)), policy);
  return path == LinearPath::kF32 ? LinearPath::kGemv : path;
}

int bucket_of(int n, int64_t n_tok) {
  for (const int bucket : kBuckets) {
    if (n <= bucket) return static_cast<int>(std::min<int64_t>(bucket, n_tok));
  }
  return n;
}

Result<StageLayout> StageLayout::plan(const Graph& graph, const StagePlan& plan,
                                      const runtime::CompileOptions& options,
                                      const Device& device) {
  StageLayout layout;
  INFER_TRY(Planner(graph, plan, options, device, &layout).run());
  return layout;
}

}  // namespace infer::cuda
