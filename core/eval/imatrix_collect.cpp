#include "core/eval/imatrix_collect.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/text/tokenizer.h"

namespace infer::eval {
namespace {

Result<void> compute_chunk(Engine& engine, std::vector<TokenId> ids, const CollectOptions& o) {
  Request request;
  request.prompt = std::move(ids);
  request.max_tokens = 0;
  if (o.output) request.on_logits = [](const LogitsRow&) {};
  INFER_ASSIGN(const RequestId id, engine.submit(std::move(request)));
  const std::stop_callback cancel(o.stop, [&engine, id] { engine.cancel(id); });
  INFER_ASSIGN(const Response done, engine.wait(id));
  if (o.stop.stop_requested()) return make_error(ErrorCode::kCancelled, "interrupted");
  if (done.timings.cached_tok > 0)
    return make_error(ErrorCode::kInvalidArgument,
                      "{} tokens came out of the prefix cache and were not seen: the engine must "
                      "be made without it",
                      done.timings.cached_tok);
  return {};
}

}  // namespace

runtime::ActivationTap::Wanted watched_tensors(bool output) {
  return [output](std::string_view tensor) { return output || tensor.starts_with("blk."); };
}

Result<int64_t> collect_imatrix(Engine& engine, std::string_view input, const CollectOptions& o) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  if (o.chunk_tok < 1 || o.chunk_tok > engine.n_ctx())
    return make_error(kCode, "chunks of {} tokens, but a sequence has 1 to {}", o.chunk_tok,
                      engine.n_ctx());
  INFER_ASSIGN(
      const std::vector<TokenId> ids,
      engine.tokenizer().encode(input, {.add_special = true, .parse_special = o.parse_special}));
  int64_t n_chunk = std::ssize(ids) / o.chunk_tok;
  if (n_chunk == 0)
    return make_error(kCode, "a text of {} tokens is less than one chunk of {}", ids.size(),
                      o.chunk_tok);
  if (o.max_chunks >= 0) n_chunk = std::min(n_chunk, o.max_chunks);
  const text::SpecialIds& special = engine.tokenizer().special();
  for (int64_t i = 0; i < n_chunk; ++i) {
    if (o.stop.stop_requested()) return make_error(ErrorCode::kCancelled, "interrupted");
    const auto begin = ids.begin() + i * o.chunk_tok;
    std::vector<TokenId> chunk(begin, begin + o.chunk_tok);
    if (special.add_bos && special.bos >= 0) chunk[0] = special.bos;
    INFER_TRY(compute_chunk(engine, std::move(chunk), o));
    if (o.on_chunk) INFER_TRY(o.on_chunk(i + 1, n_chunk));
  }
  return n_chunk;
}

}  // namespace infer::eval
