#include "backends/cuda/stage.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/check.h"

namespace infer::cuda {

Result<std::unique_ptr<Stage>> Stage::create(const graph::Graph& graph,
                                             const graph::StagePlan& plan,
                                             const runtime::CompileOptions& options,
                                             const Device& device) {
  INFER_TRY(device.use());
  std::unique_ptr<Stage> stage(new Stage(graph, plan, options, device));
  INFER_TRY(stage->allocate(options));
  return stage;
}

Result<void> Stage::allocate(const runtime::CompileOptions& options) {
  INFER_ASSIGN(layout_, StageLayout::plan(g_, plan_, options, device_));
  INFER_ASSIGN(stream_, Stream::create());
  INFER_ASSIGN(kv_, DeviceBuffer::allocate(layout_.kv_bytes, "K and V"));
  INFER_ASSIGN(arena_, DeviceBuffer::allocate(layout_.arena_bytes, "activations"));
  INFER_ASSIGN(scratch_, DeviceBuffer::allocate(layout_.scratch.n_bytes, "scratch"));
  const auto clear = [&](std::byte* data, int64_t n_bytes) {
    return check(cudaMemsetAsync(data, 0, static_cast<size_t>(n_bytes), stream_.get()),
                 "clearing memory");
  };
  const ScratchLayout& s = layout_.scratch;
  if (layout_.kv_bytes > 0) INFER_TRY(clear(kv_.data(), layout_.kv_bytes));
  if (s.counter_bytes > 0) INFER_TRY(clear(scratch_.data() + s.attention_counter, s.counter_bytes));
  if (s.sample_counter_bytes > 0)
    INFER_TRY(clear(scratch_.data() + s.sample_counter, s.sample_counter_bytes));
  return {};
}

Result<void> Stage::load(const runtime::CompileOptions& options, SaidOnce* said) {
  INFER_ASSIGN(Upload upload,
               Upload::create(std::max<int64_t>(layout_.weights.upload_bytes, 4096)));
  INFER_ASSIGN(weights_, StageWeights::load(g_, layout_.weights, options, upload));
  INFER_TRY(fill_tables(upload));
  INFER_TRY(upload.finish());
  INFER_TRY(stream_.wait());
  policy_ = {options.precise, false, device_.has_bf16()};
  if (const ScratchLayout& s = layout_.scratch; s.cublas >= 0) {
    cublas_ = Cublas::create(stream_.get(), scratch_.data() + s.cublas, s.cublas_bytes);
    policy_.has_cublas = cublas_ != nullptr;
    if (cublas_ == nullptr && options.inform && !said->no_cublas.exchange(true))
      options.inform(fmt::format(
          "cuda:{}: libcublas {}: prompts meet f16 and bf16 weights in kernels of our own",
          device_.index, Cublas::is_available() ? "does not start" : "was not found"));
  }
  plan_linears();
  return {};
}

/// Rotary angles in f64, as on the CPU, and ALiBi's slopes.
Result<void> Stage::fill_tables(Upload& upload) {
  for (size_t i = 0; i < g_.ropes.size(); ++i) {
    if (layout_.scratch.cos_sin[i] < 0) continue;
    const graph::Rope& rope = g_.ropes[i];
    std::vector<float2> table;
    table.reserve(static_cast<size_t>(n_ctx_ * rope.rope_dim / 2));
    for (int64_t pos = 0; pos < n_ctx_; ++pos) {
      for (int64_t p = 0; p < rope.rope_dim / 2; ++p) {
        const double angle = static_cast<double>(pos) * rope.inv_freq[static_cast<size_t>(p)];
        table.push_back({static_cast<float>(std::cos(angle) * rope.mscale),
                         static_cast<float>(std::sin(angle) * rope.mscale)});
      }
    }
    INFER_TRY(upload.send(scratch_.data() + layout_.scratch.cos_sin[i], table.data(),
                          static_cast<int64_t>(table.size() * sizeof(float2))));
  }
  for (int i = plan_.op_begin; i < plan_.op_end; ++i) {
    const int64_t at = layout_.scratch.alibi_slopes[static_cast<size_t>(i - plan_.op_begin)];
    if (at < 0) continue;
    const auto& slopes = g_.ops[static_cast<size_t>(i)].as<graph::AttentionAttrs>().alibi_slopes;
    INFER_TRY(upload.send(scratch_.data() + at, slopes.data(),
                          static_cast<int64_t>(slopes.size() * sizeof(float))));
  }
  return {};
}

KvPool Stage::pool(int cache_layer_id) const {
  const PoolPlace& place = layout_.pools[static_cast<size_t>(cache_layer_id)];
  const graph::CacheLayer& layer = cache_layer(cache_layer_id);
  INFER_CHECK(place.k >= 0, "cache layer {} is of another stage", cache_layer_id);
  return {kv_.data() + place.k,
          kv_.data() + place.v,
          type_k_,
          type_v_,
          static_cast<int>(layer.n_kv_head),
          static_cast<int>(layer.head_dim)};
}

Result<void> Stage::copy_kv_blocks(std::span<const int> copies_before) {
  const auto* copies = step_array<int2>(layout_.step.copies_at);
  for (size_t group = 0; group + 1 < copies_before.size(); ++group) {
    const int begin = copies_before[group];
    const int n = copies_before[group + 1] - begin;
    if (n == 0) continue;
    for (const int id : g_.cache_groups[group].cache_layers) {
      if (layout_.pools[static_cast<size_t>(id)].k < 0) continue;
      INFER_TRY(
          check(copy_blocks(pool(id), copies + begin, n, stream_.get()), "copying KV blocks"));
    }
  }
  return {};
}

}  // namespace infer::cuda
