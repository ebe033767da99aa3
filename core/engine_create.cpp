#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "core/engine.h"
#include "core/engine_internal.h"
#include "core/engine_place.h"
#include "core/model/adapter.h"
#include "core/model/model.h"
#include "gguf/reader.h"

namespace infer {
namespace {

using runtime::kBlockTok;

class TokenizerDecoder final : public internal::TextDecoder {
 public:
  explicit TokenizerDecoder(const text::Tokenizer& tokenizer)
      : decoder_(tokenizer, /*special=*/false) {}
  std::string_view push(TokenId id) override { return decoder_.push(id); }
  std::string_view finish() override { return decoder_.finish(); }

 private:
  text::StreamDecoder decoder_;
};

class TokenizerVocabulary final : public internal::Vocabulary {
 public:
  TokenizerVocabulary(const text::Tokenizer& tokenizer, int32_t n_vocab)
      : tokenizer_(tokenizer), n_vocab_(n_vocab) {}
  int32_t n_vocab() const override { return n_vocab_; }
  std::span<const TokenId> eog_ids() const override { return tokenizer_.eog_ids(); }
  std::unique_ptr<internal::TextDecoder> make_decoder() const override {
    return std::make_unique<TokenizerDecoder>(tokenizer_);
  }
  std::string_view piece(TokenId id) const override { return tokenizer_.piece(id); }

 private:
  const text::Tokenizer& tokenizer_;
  int32_t n_vocab_;
};

Error too_big(std::string_view what) {
  return make_error(ErrorCode::kOutOfMemory, "the size of {} does not fit 64 bits", what);
}

/// Bytes of one block of a group, over all its layers.
Result<int64_t> block_bytes(const graph::Graph& graph, const graph::CacheGroup& group,
                            const runtime::CompileOptions& types) {
  int64_t bytes = 0;
  for (int i : group.cache_layers) {
    const graph::CacheLayer& layer = graph.cache_layers[static_cast<size_t>(i)];
    const auto k = row_bytes(types.type_k, layer.head_dim);
    const auto v = row_bytes(types.type_v, layer.head_dim_v);
    if (!k || !v) return too_big("a row of the cache");
    const auto row = checked_mul(*k + *v, layer.n_kv_head * kBlockTok);
    const auto sum = row ? checked_add(bytes, *row) : std::nullopt;
    if (!sum) return too_big("a block of the cache");
    bytes = *sum;
  }
  return bytes;
}

int64_t blocks_of_window(int64_t window, const EngineOptions& o) {
  const int64_t all = ceil_div(o.n_ctx, kBlockTok) + 1;  // one more: the copy of a shared block
  const int64_t seen = std::min(window, o.n_ctx) + std::min(o.n_batch, o.n_ctx);
  return std::min(all, ceil_div(seen, kBlockTok) + 2);
}

/// Sizes of the pools: windows have what max_seqs sequences need, full groups what is left of
/// kv_mem_bytes.
Result<std::vector<runtime::KvGroupConfig>> size_groups(const graph::Graph& graph,
                                                        const EngineOptions& o,
                                                        const runtime::CompileOptions& types) {
  std::vector<runtime::KvGroupConfig> groups;
  int64_t window_bytes = 0, full_bytes = 0;  // full_bytes: of one block in each full group
  for (const graph::CacheGroup& g : graph.cache_groups) {
    if (g.kind == graph::CacheKind::kState)
      return make_error(ErrorCode::kUnsupported, "{}: state cache groups cannot be computed",
                        graph.arch);
    const bool full = g.kind == graph::CacheKind::kFull;
    const int64_t per_seq = full ? ceil_div(o.n_ctx, kBlockTok) : blocks_of_window(g.window, o);
    // A block of each sequence is partly empty, another the copy of a shared one.
    const int64_t n_enough = o.kv_tok > 0 ? ceil_div(o.kv_tok, kBlockTok) + 2 * o.max_seqs
                                          : std::numeric_limits<int64_t>::max();
    const int64_t n_block = std::max(per_seq, std::min(per_seq * o.max_seqs, n_enough));
    groups.push_back({.window = full ? 0 : g.window, .n_block = n_block});
    INFER_ASSIGN(const int64_t bytes, block_bytes(graph, g, types));
    const auto all = checked_mul(bytes, full ? 1 : n_block);
    const auto sum = all ? checked_add(full ? full_bytes : window_bytes, *all) : std::nullopt;
    if (!sum) return too_big("the cache");
    (full ? full_bytes : window_bytes) = *sum;
  }
  if (o.kv_mem_bytes <= 0) return groups;
  const int64_t n_fit = full_bytes > 0 ? (o.kv_mem_bytes - window_bytes) / full_bytes : 1;
  if (o.kv_mem_bytes < window_bytes || n_fit < 1)
    return make_error(ErrorCode::kOutOfMemory,
                      "kv_mem_bytes = {} is too little: windows take {}, one more block {}",
                      o.kv_mem_bytes, window_bytes, full_bytes);
  for (runtime::KvGroupConfig& g : groups) {
    if (g.window == 0) g.n_block = std::min(g.n_block, n_fit);
  }
  return groups;
}

Result<EngineOptions> resolve(const EngineOptions& options, const model::Model& model) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  constexpr int64_t kMax = int64_t{1} << 24;  // of each size, so that their products fit 64 bits
  EngineOptions o = options;
  if (o.n_ctx == 0) o.n_ctx = model.hparams().n_ctx_train;
  if (o.n_ctx < 1 || o.n_ctx > kMax)
    return make_error(kCode, "n_ctx = {} is not in 1..{}", o.n_ctx, kMax);
  if (o.n_batch < 1 || o.n_batch > kMax)
    return make_error(kCode, "n_batch = {} is not in 1..{}", o.n_batch, kMax);
  if (o.max_seqs < 1) return make_error(kCode, "max_seqs = {} is below 1", o.max_seqs);
  if (o.kv_mem_bytes < 0) return make_error(kCode, "kv_mem_bytes = {} is negative", o.kv_mem_bytes);
  if (o.kv_tok < 0 || o.kv_tok > kMax)
    return make_error(kCode, "kv_tok = {} is not in 0..{}", o.kv_tok, kMax);
  o.max_seqs = static_cast<int>(std::min<int64_t>(o.max_seqs, o.n_batch));
  if (const int64_t n_pos = model.hparams().n_pos; n_pos > 0) o.n_ctx = std::min(o.n_ctx, n_pos);
  for (DType* type : {&o.type_k, &o.type_v}) {
    if (*type != DType::kF16 && *type != DType::kF32 && *type != DType::kQ8_0 &&
        *type != DType::kQ4_0 && *type != DType::kBF16)
      return make_error(kCode, "K/V type '{}': known are f16, bf16, f32, q8_0, q4_0",
                        name_of(*type));
  }
  return o;
}

/// Quantised rows of K and V are cut into blocks, which must fit each head.
Result<void> check_cache_types(const graph::Graph& graph, const EngineOptions& o) {
  const auto check = [&](const char* flag, DType type, int64_t dim, size_t layer) -> Result<void> {
    const int32_t block = quant_type(type).block_len;
    if (dim % block == 0) return {};
    return make_error(ErrorCode::kUnsupported,
                      "{} {}: needs heads of a multiple of {}, but cache layer {} of this {} model "
                      "has heads of {}",
                      flag, name_of(type), block, layer, graph.arch, dim);
  };
  for (size_t i = 0; i < graph.cache_layers.size(); ++i) {
    const graph::CacheLayer& layer = graph.cache_layers[i];
    INFER_TRY(check("--cache-type-k", o.type_k, layer.head_dim, i));
    INFER_TRY(check("--cache-type-v", o.type_v, layer.head_dim_v, i));
  }
  return {};
}

/// Each device once, with what it computes if there are several.
std::string name_devices(const internal::StagePlacer& placer) {
  std::string text;
  std::vector<const runtime::Backend*> named;
  const auto stages = placer.stages();
  const auto infos = placer.describe();
  const bool one = std::ranges::all_of(
      stages, [&](const auto& stage) { return stage.backend == stages.front().backend; });
  for (const runtime::StagePlacement& stage : stages) {
    if (std::ranges::find(named, stage.backend) != named.end()) continue;
    named.push_back(stage.backend);
    std::string what;
    for (size_t i = 0; i < stages.size() && !one; ++i) {
      if (stages[i].backend == stage.backend)
        what += (what.empty() ? " (" : "; ") + placer.name_of(infos[i]);
    }
    const runtime::DeviceInfo device = stage.backend->describe();
    text += fmt::format(" | {}{}{}: {}", device.name, what, what.empty() ? "" : ")",
                        device.description);
  }
  return text;
}

std::string summarize(const model::Model& model, const EngineOptions& o,
                      const internal::StagePlacer& placer, const runtime::MemoryReport& memory) {
  std::string text = model.description() + name_devices(placer);
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); };
  text += fmt::format(" | MiB: weights {:.1f} + mapped {:.1f}, K/V {:.1f} ({}/{}), arena {:.1f}",
                      mib(memory.weight_bytes), mib(memory.mapped_bytes), mib(memory.kv_bytes),
                      name_of(o.type_k), name_of(o.type_v), mib(memory.arena_bytes));
  if (memory.huge_bytes > 0) text += fmt::format(", huge pages for {:.1f}", mib(memory.huge_bytes));
  if (memory.locked_bytes > 0) text += fmt::format(", locked {:.1f}", mib(memory.locked_bytes));
  if (!o.adapters.empty()) text += fmt::format(" | adapters: {}", o.adapters.size());
  return text;
}

/// Backends know tensors and ops, not the file they come from; of adapters they know the name.
Error in_file(const model::Model& model, const EngineOptions& o, const Error& error) {
  for (const auto& adapter : o.adapters) {
    if (error.message.starts_with(adapter->file().path() + ":")) return error;
  }
  return make_error(error.code, "{}: {}", model.file().path(), error.message);
}

/// Loads the stages. A GPU that turns out to have too little memory gets fewer layers, if placement
/// is automatic.
Result<std::unique_ptr<runtime::Executor>> load_stages(const graph::Graph& graph,
                                                       const EngineOptions& o,
                                                       const runtime::CompileOptions& compile,
                                                       const graph::Capacity& capacity,
                                                       internal::StagePlacer* placer) {
  const auto tell = [&] {
    if (!o.inform) return;
    for (const std::string& line : placer->memory_plan()) o.inform(line);
  };
  tell();
  std::optional<Error> first;
  const int n_wanted = placer->n_gpu_layers();
  for (;;) {
    size_t failed = 0;
    auto executor = runtime::Executor::create(graph, placer->stages(), capacity, compile, &failed);
    if (executor.ok() && first) {
      if (o.warn)
        o.warn(fmt::format("{}: {} instead of {}", first->message, placer->offloaded(), n_wanted));
      tell();
    }
    if (executor.ok() || executor.error().code != ErrorCode::kOutOfMemory) return executor;
    if (placer->stages()[failed].backend->describe().is_gpu && o.n_gpu_layers != kGpuLayersAuto)
      return make_error(ErrorCode::kOutOfMemory,
                        "{}: {} are too many; -ngl auto takes as many as fit",
                        executor.error().message, placer->offloaded());
    INFER_ASSIGN(const bool less, placer->give_less_to(failed));
    if (!less) return executor;
    if (!first) first = executor.error();
  }
}

int64_t logit_rows(int64_t n_vocab) {
  constexpr int64_t kLogitBytes = int64_t{64} << 20;
  return std::clamp<int64_t>(kLogitBytes / (n_vocab * static_cast<int64_t>(sizeof(float))), 1, 64);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(std::shared_ptr<const model::Model> model,
                                               const EngineOptions& options,
                                               std::span<runtime::Backend* const> backends) try {
  INFER_ASSIGN(const EngineOptions o, resolve(options, *model));
  INFER_ASSIGN(
      graph::Graph built,
      model->build_graph({.unfused = o.unfused, .n_ctx = o.n_ctx, .adapters = o.adapters}));
  INFER_TRY(check_cache_types(built, o));
  internal::EngineParts parts;
  auto graph = std::make_unique<const graph::Graph>(std::move(built));
  runtime::CompileOptions compile;
  compile.precise = o.precise;
  compile.type_k = o.type_k;
  compile.type_v = o.type_v;
  compile.n_ctx = o.n_ctx;
  compile.progress = o.progress;
  compile.warn = o.warn;
  compile.inform = o.inform;
  compile.tap = o.tap;
  compile.profile = o.profile;
  compile.weight_copied = [&](graph::WeightId id) {
    const auto* tensor = model->file().find_tensor(graph->weights[static_cast<size_t>(id)].tensor);
    if (tensor != nullptr) model->file().release_pages(*tensor);
  };
  INFER_ASSIGN(parts.groups, size_groups(*graph, o, compile));
  for (const runtime::KvGroupConfig& g : parts.groups)
    compile.groups.push_back({.n_block = g.n_block});
  const graph::Capacity capacity{.n_tok = o.n_batch, .n_logit_rows = logit_rows(graph->n_vocab)};
  auto placed = internal::StagePlacer::create(*graph, o, compile, capacity, backends);
  if (!placed.ok() && placed.error().code == ErrorCode::kUnsupported)
    return in_file(*model, o, placed.error());
  INFER_ASSIGN(internal::StagePlacer placer, std::move(placed));
  auto executor = load_stages(*graph, o, compile, capacity, &placer);
  if (!executor.ok()) return in_file(*model, o, executor.error());
  parts.executor = *std::move(executor);
  parts.stages = placer.describe();
  parts.summary = summarize(*model, o, placer, parts.executor->memory());
  parts.vocabulary = std::make_unique<TokenizerVocabulary>(model->tokenizer(),
                                                           static_cast<int32_t>(graph->n_vocab));
  parts.graph = std::move(graph);
  parts.model = std::move(model);
  return internal::create_with(std::move(parts), o);
} catch (const std::exception& e) {
  return make_error(ErrorCode::kOutOfMemory, "engine cannot be made: {}", e.what());
}

}  // namespace infer
