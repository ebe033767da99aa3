#include <algorithm>

#include "backends/cuda/stage.h"
#include "core/base/check.h"

/// The ops of a stage as launches of kernels/cuda.
namespace infer::cuda {

Result<void> Stage::run(int begin, int end, const StepShape& shape) {
  for (int i = begin; i < end; ++i) INFER_TRY(run_op(i, shape));
  return {};
}

Result<void> Stage::run_op(int index, const StepShape& shape) {
  const graph::Op& op = g_.ops[static_cast<size_t>(index)];
  const auto launched = [&](cudaError_t error) { return check(error, op.name); };
  switch (op.kind) {
    case graph::OpKind::kEmbed:
      return launched(embed_op(op, shape));
    case graph::OpKind::kNorm:
      return launched(has_output(index) ? norm_op(op, shape) : cudaSuccess);
    case graph::OpKind::kLinearGroup:
      return linear_op(op, linears_[static_cast<size_t>(index - plan_.op_begin)], shape);
    case graph::OpKind::kQkNormRopeStore:
      return launched(rope_store_op(op, shape));
    case graph::OpKind::kAttention:
      return launched(attention_op(index, op, shape));
    case graph::OpKind::kGatherRows:
      return launched(gather_op(op, shape));
    case graph::OpKind::kGateAdd:
      return launched(gate_add_op(op, shape));
    case graph::OpKind::kMoeRoute:
      return launched(moe_route_op(op, shape));
    case graph::OpKind::kMoeGlu:
      return launched(moe_glu_op(op, shape));
    case graph::OpKind::kMoeDown:
      return launched(moe_down_op(op, shape));
    case graph::OpKind::kAdd:
    case graph::OpKind::kGlu:
    case graph::OpKind::kHeadNorm:
    case graph::OpKind::kRope:
    case graph::OpKind::kKvStore:
      break;
  }
  INFER_CHECK(false, "supports() let op '{}' pass", op.name);
}

cudaError_t Stage::embed_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::EmbedAttrs>();
  EmbedArgs args;
  args.table = weights_.matrix(g_, attrs.table);
  if (attrs.positions != graph::kNoWeight) args.positions = weights_.matrix(g_, attrs.positions);
  args.scale = attrs.scale;
  args.rows = rows(shape);
  args.out = value(op.out[0]);
  return embed(args, stream_.get());
}

Norm Stage::norm_of(const graph::NormAttrs& attrs) const {
  return {attrs.kind == graph::NormKind::kRms ? NormKind::kRms : NormKind::kLayer,
          weights_.vector(attrs.weight), weights_.vector(attrs.bias), attrs.eps};
}

cudaError_t Stage::norm_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::NormAttrs>();
  const bool token_rows = is_token_value(op.in[0]);
  PrepareArgs args;
  args.x = value(op.in[0]);
  args.norm = norm_of(attrs);
  args.m = token_rows ? shape.m : shape.m_tail;
  args.k = n_cols(op.in[0]);
  args.n_live = n_live(token_rows, shape);
  args.f32 = value(op.out[0]);
  if (attrs.residual_after) args.residual_after = value(op.in[1]);
  return prepare_act(args, stream_.get());
}

cudaError_t Stage::rope_store_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::QkvAttrs>();
  RopeStoreArgs args;
  args.q = value(op.in[0]);
  args.k = value(op.in[1]);
  args.v = value(op.in[2]);
  args.q_out = value(op.out[0]);
  args.q_norm = weights_.vector(attrs.q_norm);
  args.k_norm = weights_.vector(attrs.k_norm);
  args.eps = attrs.eps;
  if (attrs.rope >= 0) {
    const graph::Rope& rope = g_.ropes[static_cast<size_t>(attrs.rope)];
    args.rope_kind = rope.kind == graph::RopeKind::kNorm ? RopeKind::kNorm : RopeKind::kNeox;
    args.rope_dim = static_cast<int>(rope.rope_dim);
    args.cos_sin = scratch<float2>(layout_.scratch.cos_sin[static_cast<size_t>(attrs.rope)]);
  }
  args.n_head = static_cast<int>(attrs.n_head);
  args.pool = pool(attrs.cache_layer);
  args.rows = rows(shape);
  args.table = layout_.step.table(step_arrays(), cache_layer(attrs.cache_layer).group);
  return rope_store(args, stream_.get());
}

/// Rows that are alone in their sequence: what they see is split alike whoever else is in the step.
cudaError_t Stage::attention_single(const graph::AttentionAttrs& attrs, const AttentionArgs& args,
                                    const StepShape& shape) {
  const int64_t visible = attrs.window > 0 ? std::min(attrs.window, n_ctx_) : n_ctx_;
  AttentionDecodeArgs decode;
  decode.attention = args;
  decode.attention.rows = layout_.step.single_rows(step_arrays(), shape.m_single);
  const DecodeHeads heads = {args.pool.head_dim, args.n_head, args.pool.n_kv_head,
                             device_.n_multiprocessor};
  decode.n_split = attention_split(heads, visible);
  decode.n_block = attention_blocks(heads, shape.m_single, decode.n_split);
  decode.partial = scratch<float>(layout_.scratch.attention_partial);
  decode.counter = scratch<int32_t>(layout_.scratch.attention_counter);
  return attention_decode(decode, stream_.get());
}

cudaError_t Stage::attention_op(int index, const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::AttentionAttrs>();
  AttentionArgs args;
  args.q = value(op.in[0]);
  args.out = value(op.out[0]);
  args.pool = pool(attrs.cache_layer);
  args.rows = rows(shape);
  args.table = layout_.step.table(step_arrays(), cache_layer(attrs.cache_layer).group);
  args.n_head = static_cast<int>(attrs.n_head);
  args.scale = attrs.scale;
  args.softcap = attrs.softcap;
  args.window = static_cast<int>(attrs.window);
  args.alibi_slopes =
      scratch<float>(layout_.scratch.alibi_slopes[static_cast<size_t>(index - plan_.op_begin)]);
  if (shape.m_single > 0) {
    const cudaError_t error = attention_single(attrs, args, shape);
    if (shape.is_decode || error != cudaSuccess) return error;
  }
  const std::vector<int>& sizes = layout_.step.tile_rows;
  const int tile_rows = query_tile_rows(args.pool.head_dim, args.n_head / args.pool.n_kv_head);
  const auto kind =
      static_cast<size_t>(std::find(sizes.begin(), sizes.end(), tile_rows) - sizes.begin());
  AttentionPrefillArgs prefill;
  prefill.attention = args;
  prefill.tiles = step_array<QueryTile>(layout_.step.tiles_at[kind]);
  prefill.n_tile = shape.n_tile[kind];
  return attention_prefill(prefill, stream_.get());
}

cudaError_t Stage::gather_op(const graph::Op& op, const StepShape& shape) {
  GatherArgs args;
  args.x = value(op.in[0]);
  args.index = step_array<int32_t>(layout_.step.want_at) + shape.turn * layout_.step.n_logit_rows;
  args.m = shape.m_tail;
  args.k = n_cols(op.in[0]);
  args.n_live = n_live(/*token_rows=*/false, shape);
  args.out = value(op.out[0]);
  return gather_rows(args, stream_.get());
}

cudaError_t Stage::gate_add_op(const graph::Op& op, const StepShape& shape) {
  return gate_add(value(op.in[0]), value(op.in[1]), value(op.in[2]), shape.m, n_cols(op.out[0]),
                  n_live(/*token_rows=*/true, shape), value(op.out[0]), stream_.get());
}

cudaError_t Stage::moe_route_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::MoeRouteAttrs>();
  MoeRouteArgs args;
  args.logits = value(op.in[0]);
  args.m = shape.m;
  args.n_live = n_live(/*token_rows=*/true, shape);
  args.n_expert = static_cast<int>(attrs.n_expert);
  args.n_used = static_cast<int>(attrs.n_used);
  args.normalise = attrs.normalise;
  args.route = value(op.out[0]);
  args.pairs = expert_pairs();
  return moe_route(args, stream_.get());
}

cudaError_t Stage::prepare_experts(const Matrix& w, graph::ValueId x, int m, const int32_t* n_live,
                                   int n_pair, ExpertAct* act) {
  const ScratchLayout& s = layout_.scratch;
  const LinearPath path = expert_path(w.type, n_pair, w.n_expert, policy_);
  if (path == LinearPath::kGemv) return cudaSuccess;
  PrepareArgs args;
  args.x = value(x);
  args.m = m;
  args.k = w.k;
  args.n_live = n_live;
  if (path == LinearPath::kGemmQ8) {
    act->q8 = args.q8 = {scratch<int8_t>(s.act_q), scratch<float2>(s.act_ds)};
  } else {
    const bool bf16 = takes_bf16(w.type, policy_);
    uint16_t* half = scratch<uint16_t>(bf16 ? s.act_bf16 : s.act_f16);
    (bf16 ? args.bf16 : args.f16) = half;
    act->half = half;
  }
  return prepare_act(args, stream_.get());
}

/// Between a route and its experts no other route is made, so that one set of pairs is enough.
cudaError_t Stage::moe_glu_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::MoeLinearAttrs>();
  MoeGluArgs args;
  args.x = value(op.in[0]);
  args.m = shape.m;
  args.n_used = static_cast<int>(attrs.n_used);
  args.n_live = n_live(/*token_rows=*/true, shape);
  args.gate = weights_.matrix(g_, attrs.gate);
  args.up = weights_.matrix(g_, attrs.up);
  args.glu = static_cast<GluKind>(attrs.glu);
  args.pairs = expert_pairs();
  args.h = value(op.out[0]);
  args.precise = policy_.precise;
  const cudaError_t error =
      prepare_experts(args.gate, op.in[0], args.m, args.n_live, args.m * args.n_used, &args.act);
  return error == cudaSuccess ? moe_glu(args, stream_.get()) : error;
}

cudaError_t Stage::moe_down_op(const graph::Op& op, const StepShape& shape) {
  const auto& attrs = op.as<graph::MoeLinearAttrs>();
  MoeDownArgs args;
  args.h = value(op.in[0]);
  args.m = shape.m;
  args.n_used = static_cast<int>(attrs.n_used);
  args.n_live = n_live(/*token_rows=*/true, shape);
  args.down = weights_.matrix(g_, attrs.down);
  args.pairs = expert_pairs();
  args.route = value(op.in[1]);
  args.residual = value(op.in[2]);
  args.scratch = scratch<float>(layout_.scratch.expert_out);
  args.out = value(op.out[0]);
  args.precise = policy_.precise;
  // Of h as many rows are alive as there are pairs.
  const int n_pair = args.m * args.n_used;
  const cudaError_t error = prepare_experts(
      args.down, op.in[0], n_pair, args.pairs.begin + args.down.n_expert, n_pair, &args.act);
  return error == cudaSuccess ? moe_down(args, stream_.get()) : error;
}

Result<void> Stage::sample_rows(const StepShape& shape) {
  SampleArgs args;
  args.logits = value(plan_.out);
  args.m = shape.m_tail;
  args.n_vocab = static_cast<int>(g_.n_vocab);
  args.n_live = n_live(/*token_rows=*/false, shape);
  args.n_top = shape.n_top;
  const ResultsView view = results_view(results(), shape.m_tail, shape.n_top);
  args.stats = view.stats;
  args.top_logit = view.top_logit;
  args.top_id = view.top_id;
  args.counter = scratch<int32_t>(layout_.scratch.sample_counter);
  args.scratch = scratch<std::byte>(layout_.scratch.sample);
  return check(sample(args, stream_.get()), "reading the logits");
}

}  // namespace infer::cuda
