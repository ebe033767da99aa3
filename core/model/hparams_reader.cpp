#include "core/model/hparams_reader.h"

#include <cmath>

#include "core/base/error.h"

namespace infer::model {
namespace {

// Far beyond any model, and small enough that products of two stay inside int64_t and offsets of
// rows inside int32_t.
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxWidth = 1 << 22;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int64_t kMaxVocab = 1 << 24;

}  // namespace

Error HparamsReader::contradiction(std::string_view key, int64_t value,
                                   std::string_view why) const {
  return make_error(ErrorCode::kCorrupt, "{}: key '{}' = {}: {}", file_.path(), full(key), value,
                    why);
}

Error HparamsReader::unsupported(std::string_view key, std::string_view value,
                                 std::string_view why) const {
  return make_error(ErrorCode::kUnsupported, "{}: key '{}' = {}: {}", file_.path(), full(key),
                    value, why);
}

Result<int64_t> HparamsReader::integer(std::string_view key, int64_t min, int64_t max) const {
  INFER_ASSIGN(const int64_t v, file_.get_int(full(key)));
  if (v < min || v > max)
    return contradiction(key, v, fmt::format("must be in [{}, {}]", min, max));
  return v;
}

Result<int64_t> HparamsReader::integer(std::string_view key, int64_t min, int64_t max,
                                       int64_t fallback) const {
  return has(key) ? integer(key, min, max) : Result<int64_t>(fallback);
}

Result<float> HparamsReader::number(std::string_view key, double min, double max) const {
  INFER_ASSIGN(const double v, file_.get_float(full(key)));
  if (!(v >= min && v <= max)) {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' = {}: must be in [{}, {}]", file_.path(),
                      full(key), v, min, max);
  }
  return static_cast<float>(v);
}

Result<float> HparamsReader::number(std::string_view key, double min, double max,
                                    double fallback) const {
  return has(key) ? number(key, min, max) : Result<float>(static_cast<float>(fallback));
}

Result<std::string> HparamsReader::text(std::string_view key, std::string_view fallback) const {
  INFER_ASSIGN(const std::string_view v, file_.get_string(full(key), fallback));
  return std::string(v);
}

Result<std::vector<int64_t>> HparamsReader::per_layer(std::string_view key, int64_t n_layer,
                                                      int64_t min, int64_t max) const {
  const gguf::Value* value = file_.find(full(key));
  if (value == nullptr || value->type() != gguf::ValueType::kArray) {
    INFER_ASSIGN(const int64_t v, integer(key, min, max));
    return std::vector<int64_t>(static_cast<size_t>(n_layer), v);
  }
  if (value->size() != n_layer) {
    return contradiction(key, value->size(),
                         fmt::format("an array of this length, but block_count = {}", n_layer));
  }
  std::vector<int64_t> out;
  for (int64_t il = 0; il < n_layer; ++il) {
    const Result<int64_t> v = value->int_at(il);
    if (!v.ok())
      return make_error(ErrorCode::kCorrupt, "{}: key '{}'[{}]: {}", file_.path(), full(key), il,
                        v.error().message);
    if (*v < min || *v > max)
      return contradiction(key, *v, fmt::format("entry {} must be in [{}, {}]", il, min, max));
    out.push_back(*v);
  }
  return out;
}

Result<void> read_experts(const HparamsReader& r, Hparams* hp) {
  constexpr int64_t kMaxExperts = 1 << 12;
  INFER_ASSIGN(hp->n_expert, r.integer("expert_count", 0, kMaxExperts, 0));
  if (hp->n_expert == 0) return {};
  INFER_ASSIGN(hp->n_expert_used, r.integer("expert_used_count", 1, hp->n_expert));
  INFER_ASSIGN(hp->n_ff_exp, r.integer("expert_feed_forward_length", 1, kMaxWidth, hp->n_ff(0)));
  return {};
}

Result<Hparams> read_common(const HparamsReader& r, std::string_view eps_key) {
  Hparams hp;
  hp.arch = r.arch();
  INFER_ASSIGN(const std::string_view name, r.file().get_string("general.name", ""));
  hp.name = std::string(name);
  INFER_ASSIGN(hp.n_layer, r.integer("block_count", 1, kMaxLayers));
  INFER_ASSIGN(hp.n_embd, r.integer("embedding_length", 1, kMaxWidth));
  INFER_ASSIGN(hp.n_ctx_train, r.integer("context_length", 1, kMaxContext));
  INFER_ASSIGN(hp.norm_eps, r.number(eps_key, 0.0, 1.0));

  INFER_ASSIGN(const auto n_head, r.per_layer("attention.head_count", hp.n_layer, 1, kMaxHeads));
  std::vector<int64_t> n_kv_head = n_head;
  if (r.has("attention.head_count_kv")) {
    INFER_ASSIGN(n_kv_head, r.per_layer("attention.head_count_kv", hp.n_layer, 1, kMaxHeads));
  }
  INFER_ASSIGN(const auto n_ff, r.per_layer("feed_forward_length", hp.n_layer, 1, kMaxWidth));
  for (size_t il = 0; il < n_head.size(); ++il) {
    if (n_head[il] % n_kv_head[il] != 0) {
      return r.contradiction("attention.head_count_kv", n_kv_head[il],
                             fmt::format("does not divide head_count = {}", n_head[il]));
    }
    hp.layers.push_back({n_head[il], n_kv_head[il], n_ff[il], 0, 0});
  }

  if (!r.has("attention.key_length") && hp.n_embd % n_head[0] != 0) {
    return r.contradiction("attention.head_count", n_head[0],
                           fmt::format("does not divide embedding_length = {}", hp.n_embd));
  }
  INFER_ASSIGN(hp.head_dim,
               r.integer("attention.key_length", 1, kMaxHeadDim, hp.n_embd / n_head[0]));
  INFER_ASSIGN(hp.head_dim_v, r.integer("attention.value_length", 1, kMaxHeadDim, hp.head_dim));
  if (hp.head_dim > kMaxHeadDim) {
    return r.contradiction("attention.head_count", n_head[0],
                           fmt::format("makes heads of {} elements", hp.head_dim));
  }
  hp.attn_scale = 1.0f / std::sqrt(static_cast<float>(hp.head_dim));

  const gguf::Value* tokens = r.file().find("tokenizer.ggml.tokens");
  const int64_t n_tokens = tokens != nullptr ? tokens->size() : 0;
  INFER_ASSIGN(hp.n_vocab, r.integer("vocab_size", 1, kMaxVocab, n_tokens));
  if (hp.n_vocab < 1 || hp.n_vocab > kMaxVocab)
    return r.contradiction("vocab_size", hp.n_vocab, "no vocabulary");
  return hp;
}

}  // namespace infer::model
