#include "core/eval/token_chunks.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::eval {

std::vector<TokenId> TokenChunks::input(int64_t chunk) const {
  const auto from = tokens.begin() + begin(chunk);
  std::vector<TokenId> ids(from, from + n_ctx - 1);
  if (bos >= 0) ids.front() = bos;
  return ids;
}

Result<TokenChunks> cut_text(std::string_view input, const text::Tokenizer& tokenizer,
                             const ChunkOptions& o) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  constexpr int64_t kMaxCtx = int64_t{1} << 24;
  if (o.n_ctx < 4 || o.n_ctx > kMaxCtx)
    return make_error(kCode, "windows of {} tokens: 4 to {} are possible", o.n_ctx, kMaxCtx);
  if (o.stride < 0 || o.stride >= o.n_ctx)
    return make_error(kCode, "--stride {} is not below the context of {}", o.stride, o.n_ctx);
  TokenChunks c;
  INFER_ASSIGN(c.tokens, tokenizer.encode(input, {.add_special = true, .parse_special = false}));
  const int64_t n_tok = std::ssize(c.tokens);
  if (n_tok < 2 * o.n_ctx)
    return make_error(kCode, "a text of {} tokens is too short: a context of {} needs {}", n_tok,
                      o.n_ctx, 2 * o.n_ctx);
  c.n_ctx = o.n_ctx;
  c.stride = o.stride > 0 ? o.stride : o.n_ctx;
  c.n_chunk = o.stride > 0 ? ceil_div(n_tok - o.n_ctx, o.stride) : n_tok / o.n_ctx;
  if (o.max_chunks >= 0) c.n_chunk = std::min(c.n_chunk, o.max_chunks);
  if (c.n_chunk < 1) return make_error(kCode, "--chunks {}: nothing to do", o.max_chunks);
  c.n_context = o.stride > 0 ? o.n_ctx - o.stride - 1 : o.n_ctx / 2;
  const text::SpecialIds& special = tokenizer.special();
  if (special.add_bos) c.bos = special.bos;
  return c;
}

Result<void> run_chunks(Engine& engine, const TokenChunks& chunks, int64_t n_batch,
                        const std::stop_token& stop, const MakeRequest& make,
                        const ChunkDone& done) {
  // One more than a batch holds, so that no step has to wait for the next request.
  const int64_t n_open = std::max<int64_t>(1, n_batch / chunks.n_ctx) + 1;
  std::deque<RequestId> open;
  const auto cancel_all = [&] {
    for (const RequestId id : open) engine.cancel(id);
    for (const RequestId id : open) (void)engine.wait(id);
  };
  int64_t next = 0;
  for (int64_t chunk = 0; chunk < chunks.n_chunk; ++chunk) {
    while (next < chunks.n_chunk && std::ssize(open) < n_open) {
      Request request = make(next);
      request.prompt = chunks.input(next++);
      request.max_tokens = 0;
      auto id = engine.submit(std::move(request));
      if (!id.ok()) {
        cancel_all();
        return std::move(id).error();
      }
      open.push_back(*id);
    }
    const RequestId id = open.front();
    auto response = [&] {
      const std::stop_callback on_stop(stop, [&] { engine.cancel(id); });
      return engine.wait(id);
    }();
    open.pop_front();
    Result<void> result;
    if (stop.stop_requested()) {
      result = make_error(ErrorCode::kCancelled, "interrupted");
    } else if (!response.ok()) {
      result = std::move(response).error();
    } else {
      result = done(chunk, *response);
    }
    if (!result.ok()) {
      cancel_all();
      return result;
    }
  }
  return {};
}

}  // namespace infer::eval
