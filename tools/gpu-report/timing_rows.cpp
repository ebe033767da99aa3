#include "kernels/cuda/attention.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/row_ops.h"
#include "tools/gpu-report/timing.h"

/// What is no matrix product: attention, rope and store, elementwise ops, sampling; and experts.
namespace infer::cuda::timing {

void Bench::attention() {
  const auto heads = [&](Json j) {
    j["n_head"] = s_.n_head, j["n_kv_head"] = s_.n_kv_head, j["head_dim"] = s_.head_dim;
    return j;
  };
  AttentionArgs a;
  a.q = x_.as<float>(), a.out = out_.as<float>();
  a.pool = pool(), a.table = table(), a.n_head = s_.n_head, a.scale = 0.088f;
  for (const int n_kv : {64, 512, kContext}) {
    const Memory slot(std::vector<int32_t>{n_kv - 1});
    a.rows = {1, live(1), nullptr, slot.as<int32_t>(), slot.as<int32_t>(), zeros_->as<int32_t>()};
    const DecodeHeads of_layer = {s_.head_dim, s_.n_head, s_.n_kv_head, n_sm_};
    const int n_split = attention_split(of_layer, kContext);
    const int n_block = attention_blocks(of_layer, 1, n_split);
    const Memory partial(4 * attention_partial_floats(1, s_.n_head, s_.head_dim, n_split), false);
    const Memory counter(4 * attention_counters(1, s_.n_head, s_.n_kv_head), false);
    const AttentionDecodeArgs args = {a, n_split, n_block, partial.as<float>(),
                                      counter.as<int32_t>()};
    add(heads({{"op", "attention_decode"}, {"m", 1}, {"n_kv", n_kv}, {"n_split", n_split}}),
        [&](cudaStream_t stream) { return attention_decode(args, stream); });
  }
  const int tile = query_tile_rows(s_.head_dim, s_.n_head / s_.n_kv_head);
  std::vector<QueryTile> tiles;
  for (int i = 0; i < kRowsAtMost; i += tile) tiles.push_back({i, std::min(tile, kRowsAtMost - i)});
  const Memory on_device(tiles);
  a.rows = {kRowsAtMost,           live(kRowsAtMost),     nullptr,
            slots_->as<int32_t>(), slots_->as<int32_t>(), zeros_->as<int32_t>()};
  const AttentionPrefillArgs args = {a, on_device.as<QueryTile>(), static_cast<int>(tiles.size())};
  add(heads({{"op", "attention_prefill"}, {"m", kRowsAtMost}}),
      [&](cudaStream_t stream) { return attention_prefill(args, stream); });
}

void Bench::rows() {
  const Memory angles(int64_t{8} * kContext * s_.head_dim / 2);
  for (const int m : {1, kRowsAtMost}) {
    RopeStoreArgs rope;
    rope.q = x_.as<float>(), rope.k = rope.q + int64_t{m} * s_.n_head * s_.head_dim;
    rope.v = rope.q, rope.q_out = out_.as<float>(), rope.rope_dim = s_.head_dim;
    rope.cos_sin = angles.as<float2>(), rope.n_head = s_.n_head;
    rope.pool = pool(), rope.rows = prompt_rows(m), rope.table = table();
    add({{"op", "rope_store"},
         {"m", m},
         {"n_head", s_.n_head},
         {"n_kv_head", s_.n_kv_head},
         {"head_dim", s_.head_dim}},
        [&](cudaStream_t stream) { return rope_store(rope, stream); });
    elementwise(m);
  }
  constexpr int kTop = 1;
  const Memory stats(256), logit(256), id(256), counter(256, false);
  const Memory scratch(sample_scratch_bytes(1, s_.n_vocab, kTop), false);
  SampleArgs pick;
  pick.logits = out_.as<float>(), pick.m = 1, pick.n_vocab = s_.n_vocab, pick.n_live = live(1);
  pick.n_top = kTop, pick.stats = stats.as<RowStats>();
  pick.top_logit = logit.as<float>(), pick.top_id = id.as<int32_t>();
  pick.counter = counter.as<int32_t>(), pick.scratch = scratch.as<std::byte>();
  add({{"op", "sample"}, {"m", 1}, {"n_vocab", s_.n_vocab}},
      [&](cudaStream_t stream) { return sample(pick, stream); });
}

void Bench::elementwise(int m) {
  const int k = s_.n_embd;
  const int32_t* n_live = live(m);
  const float *x = x_.as<float>(), *y = x + int64_t{m} * k;
  auto* out = out_.as<float>();
  const auto timed = [&](const char* op, const std::function<cudaError_t(cudaStream_t)>& launch) {
    add({{"op", op}, {"m", m}, {"k", k}}, launch);
  };
  PrepareArgs prepare;
  prepare.x = x, prepare.m = m, prepare.k = k, prepare.n_live = n_live;
  prepare.norm = {NormKind::kRms, norm_.as<float>(), nullptr, 1e-5f};
  prepare.f16 = act_.as<uint16_t>();
  add({{"op", "prepare"}, {"form", "f16"}, {"m", m}, {"k", k}},
      [&](cudaStream_t stream) { return prepare_act(prepare, stream); });
  prepare.f16 = nullptr;
  prepare.q8 = {act_.as<int8_t>(), scales_.as<float2>()};
  add({{"op", "prepare"}, {"form", "q8"}, {"m", m}, {"k", k}},
      [&](cudaStream_t stream) { return prepare_act(prepare, stream); });
  const WeightLayout layout = weight_layout(DType::kQ4_0);
  const Memory table(plane_offset(layout, layout.n_plane, 1024, k));
  EmbedArgs embedding;
  embedding.table = make_matrix(DType::kQ4_0, 1024, k, 1, table.as<std::byte>());
  embedding.rows = prompt_rows(m), embedding.out = out;
  timed("embed", [&](cudaStream_t stream) { return embed(embedding, stream); });
  const GatherArgs gather = {x, slots_->as<int32_t>(), m, k, n_live, out};
  timed("gather", [&](cudaStream_t stream) { return gather_rows(gather, stream); });
  timed("gate_add", [&](cudaStream_t stream) {
    return gate_add(x, norm_.as<float>(), y, m, k, n_live, out, stream);
  });
}

/// Eight experts, two of them a row, each a quarter as wide as the model's own feed-forward: by
/// gemv, and by each kernel for many rows.
void Bench::experts() {
  constexpr int kExperts = 8, kUsed = 2;
  const int k = s_.n_embd, n = s_.n_ff / 4 / 256 * 256;
  const WeightLayout layout = weight_layout(DType::kQ4_K);
  const auto weights = [&](int rows, int columns) {
    return std::make_unique<Memory>(kExperts * plane_offset(layout, layout.n_plane, rows, columns));
  };
  const auto gate = weights(n, k), up = weights(n, k), down = weights(k, n);
  const Memory route(4 * kRowsAtMost * 2 * kUsed), begin(256, false);
  const Memory pair(4 * kRowsAtMost * kUsed, false);
  const Memory scratch(int64_t{4} * kRowsAtMost * kUsed * k);
  const auto matrix = [&](int rows, int columns, const Memory& at) {
    return make_matrix(DType::kQ4_K, rows, columns, kExperts, at.as<std::byte>());
  };
  ExpertAct q8, half;
  q8.q8 = {act_.as<int8_t>(), scales_.as<float2>()};
  half.half = act_.as<uint16_t>();
  for (const int m : {1, 16, kRowsAtMost}) {
    const auto timed = [&](const std::string& op,
                           const std::function<cudaError_t(cudaStream_t)>& launch) {
      add({{"op", op}, {"type", "q4_k"}, {"n_expert", kExperts}, {"n", n}, {"k", k}, {"m", m}},
          launch);
    };
    const ExpertPairs pairs = {begin.as<int32_t>(), pair.as<int32_t>()};
    const int32_t* n_live = live(m);
    MoeRouteArgs choose;
    choose.logits = x_.as<float>(), choose.m = m, choose.n_live = n_live;
    choose.n_expert = kExperts, choose.n_used = kUsed;
    choose.route = route.as<float>(), choose.pairs = pairs;
    timed("moe_route", [&](cudaStream_t stream) { return moe_route(choose, stream); });
    MoeGluArgs first;
    first.x = x_.as<float>(), first.m = m, first.n_used = kUsed, first.n_live = n_live;
    first.gate = matrix(n, k, *gate), first.up = matrix(n, k, *up);
    first.pairs = pairs, first.h = out_.as<float>();
    MoeDownArgs second;
    second.h = out_.as<float>(), second.m = m, second.n_used = kUsed, second.n_live = n_live;
    second.down = matrix(k, n, *down), second.pairs = pairs, second.route = route.as<float>();
    second.residual = x_.as<float>(), second.scratch = scratch.as<float>();
    second.out = out_.as<float>() + int64_t{kRowsAtMost} * s_.n_ff;
    for (const auto& [kernel, act] :
         {std::pair("", ExpertAct{}), std::pair("_gemm_q8", q8), std::pair("_gemm_half", half)}) {
      if (m == 1 && *kernel != '\0') continue;
      first.act = second.act = act;
      timed(std::string("moe_glu") + kernel,
            [&](cudaStream_t stream) { return moe_glu(first, stream); });
      timed(std::string("moe_down") + kernel,
            [&](cudaStream_t stream) { return moe_down(second, stream); });
    }
  }
}

}  // namespace infer::cuda::timing
