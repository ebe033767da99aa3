#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/check.h"
#include "core/base/error.h"
#include "core/engine_impl.h"
#include "core/model/adapter.h"
#include "core/model/model.h"
#include "gguf/content_hash.h"

/// EngineImpl and sessions: K and V out of the cache, and back into it. All but reading and writing
/// files happens on the engine's thread, between steps.
namespace infer::internal {
namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;

uint64_t mix_in(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 32);
}

}  // namespace

/// What this engine's sessions are bound to. The model is hashed when it is first asked for.
Result<const SessionBinding*> EngineImpl::binding() const {
  if (parts_.model == nullptr || parts_.graph == nullptr || !parts_.executor->moves_kv())
    return make_error(ErrorCode::kUnsupported, "this engine cannot keep sessions");
  std::call_once(bound_, [&] {
    binding_.model_hash = gguf::content_hash(parts_.model->file());
    binding_.precise = options_.precise;
    binding_.long_rope = parts_.model->hparams().takes_long_ropes(options_.n_ctx);
    binding_.type_k = options_.type_k;
    binding_.type_v = options_.type_v;
    binding_.n_vocab = limits_.n_vocab;
    for (const graph::CacheLayer& layer : parts_.graph->cache_layers) {
      binding_.layers.push_back(
          {layer.n_kv_head, layer.head_dim, layer.head_dim_v, cache_.window(layer.group)});
    }
  });
  return &binding_;
}

uint64_t EngineImpl::mix_hash(const std::vector<AdapterUse>& mix) const {
  uint64_t hash = 0;
  for (const AdapterUse& use : mix) {
    const model::Adapter& adapter = *options_.adapters[static_cast<size_t>(use.adapter)];
    hash = mix_in(hash, gguf::content_hash(adapter.file()));
    hash = mix_in(hash, std::bit_cast<uint32_t>(use.scale));
  }
  return hash;
}

Result<std::shared_ptr<const Session>> EngineImpl::read_session(const std::string& path) const try {
  INFER_ASSIGN(const SessionBinding* bound, binding());
  INFER_ASSIGN(Session session, infer::read_session(path, *bound));
  return std::make_shared<const Session>(std::move(session));
} catch (const std::exception& e) {
  return make_error(ErrorCode::kOutOfMemory, "{}: {}", path, e.what());
}

Result<void> EngineImpl::write_session(const std::string& path, const Session& session) const {
  INFER_ASSIGN(const SessionBinding* bound, binding());
  return infer::write_session(path, *bound, session);
}

/// A session of another shape cannot come from a file, but from a caller.
Result<void> EngineImpl::check_session(const Request& request) const {
  if (request.keep == KeepSession::kNone && request.session == nullptr) return {};
  INFER_ASSIGN(const SessionBinding* bound, binding());
  if (request.session == nullptr) return {};
  const Session& session = *request.session;
  if (session.adapter_hash != mix_hash(*request.adapters))
    return make_error(kInvalid, "the session was made with other adapters than the request's");
  if (session.layers.size() != bound->layers.size()) {
    return make_error(kInvalid, "the session has {} layers, expected {}", session.layers.size(),
                      bound->layers.size());
  }
  const auto n_tok = static_cast<int64_t>(session.tokens.size());
  for (size_t i = 0; i < session.layers.size(); ++i) {
    const SessionBinding::Layer& want = bound->layers[i];
    const Session::Layer& layer = session.layers[i];
    const int64_t n_row = n_tok - layer.first;
    const int64_t k = session_row_bytes(bound->type_k, want.n_kv_head, want.head_dim);
    const int64_t v = session_row_bytes(bound->type_v, want.n_kv_head, want.head_dim_v);
    if (layer.first < 0 || layer.first % runtime::kBlockTok != 0 || n_row < 0 ||
        static_cast<int64_t>(layer.k.size()) != n_row * k ||
        static_cast<int64_t>(layer.v.size()) != n_row * v) {
      return make_error(kInvalid, "layer {} of the session has {} and {} bytes from token {} of {}",
                        i, layer.k.size(), layer.v.size(), layer.first, n_tok);
    }
  }
  return {};
}

void EngineImpl::use_session(Sample& leader) const {
  const Session* session = leader.state->request.session.get();
  if (session == nullptr) return;
  leader.saved_tokens = session->tokens;
  leader.saved_first.assign(static_cast<size_t>(cache_.n_group()), 0);
  for (size_t i = 0; i < session->layers.size(); ++i) {
    int64_t& first = leader.saved_first[static_cast<size_t>(parts_.graph->cache_layers[i].group)];
    first = std::max(first, session->layers[i].first);
  }
}

Result<void> EngineImpl::import_session(const runtime::Sequence& sequence) {
  const auto& sample = static_cast<const Sample&>(sequence);
  const Session& session = *sample.state->request.session;
  for (size_t i = 0; i < session.layers.size(); ++i) {
    const Session::Layer& layer = session.layers[i];
    const int group = parts_.graph->cache_layers[i].group;
    const int64_t end = sequence.n_matched;
    const int64_t begin =
        runtime::first_seen(cache_.window(group), end) / runtime::kBlockTok * runtime::kBlockTok;
    const SessionBinding::Layer& shape = binding_.layers[i];
    const auto rows = [&](const std::vector<std::byte>& all, DType type, int64_t dim) {
      const int64_t row = session_row_bytes(type, shape.n_kv_head, dim);
      return std::span(all).subspan(static_cast<size_t>((begin - layer.first) * row),
                                    static_cast<size_t>((end - begin) * row));
    };
    INFER_TRY(parts_.executor->import_kv(
        {static_cast<int>(i), cache_.table(sequence.kv, group), begin, end},
        rows(layer.k, binding_.type_k, shape.head_dim),
        rows(layer.v, binding_.type_v, shape.head_dim_v)));
  }
  return {};
}

/// Copies what the sample has computed so far. A sequence that lost its place has nothing.
void EngineImpl::keep_session(Sample& sample) {
  if (sample.kv == runtime::kNoSeq) return;
  const int64_t n_tok = cache_.len(sample.kv);
  if (n_tok == 0) return;
  auto session = std::make_shared<Session>();
  session->adapter_hash = mix_hash(sample.adapters);
  session->tokens.assign(sample.tokens.begin(), sample.tokens.begin() + n_tok);
  for (size_t i = 0; i < binding_.layers.size(); ++i) {
    const SessionBinding::Layer& shape = binding_.layers[i];
    const int group = parts_.graph->cache_layers[i].group;
    Session::Layer& layer = session->layers.emplace_back();
    layer.first =
        runtime::first_seen(shape.window, n_tok) / runtime::kBlockTok * runtime::kBlockTok;
    const auto n_row = n_tok - layer.first;
    const auto size = [&](DType type, int64_t dim) {
      return static_cast<size_t>(n_row * session_row_bytes(type, shape.n_kv_head, dim));
    };
    layer.k.resize(size(binding_.type_k, shape.head_dim));
    layer.v.resize(size(binding_.type_v, shape.head_dim_v));
    Result<void> moved = parts_.executor->export_kv(
        {static_cast<int>(i), cache_.table(sample.kv, group), layer.first, n_tok}, layer.k,
        layer.v);
    if (!moved.ok()) {  // a device that is lost
      sample.state->error = in_file(std::move(moved).error());
      return;
    }
  }
  sample.state->response.session = std::move(session);
}

}  // namespace infer::internal
