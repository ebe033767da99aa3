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

namespace {

/// Requests in work, in their order. What they write to outlives it: the destructor cancels them
/// and waits, on an error as on an exception.
class OpenRequests {
 public:
  explicit OpenRequests(Engine& engine) : engine_(engine) {}
  OpenRequests(const OpenRequests&) = delete;
  OpenRequests& operator=(const OpenRequests&) = delete;
  ~OpenRequests() {
    for (const RequestId id : ids_) engine_.cancel(id);
    for (const RequestId id : ids_) (void)engine_.wait(id);
  }

  int64_t size() const { return std::ssize(ids_); }
  Result<void> submit(Request request) {
    ids_.push_back(0);  // no request has this id; nothing can throw between submit and its place
    auto id = engine_.submit(std::move(request));
    if (!id.ok()) {
      ids_.pop_back();
      return std::move(id).error();
    }
    ids_.back() = *id;
    return {};
  }
  Result<Response> wait_first(const std::stop_token& stop) {
    const RequestId id = ids_.front();
    const std::stop_callback on_stop(stop, [&] { engine_.cancel(id); });
    auto response = engine_.wait(id);
    ids_.pop_front();
    return response;
  }

 private:
  Engine& engine_;
  std::deque<RequestId> ids_;
};

}  // namespace

int64_t windows_in_work(const TokenChunks& chunks, int64_t n_batch) {
  // One more than a batch holds, so that no step has to wait for the next request.
  return std::max<int64_t>(1, n_batch / chunks.n_ctx) + 1;
}

Result<void> run_chunks(Engine& engine, const TokenChunks& chunks, int64_t n_batch,
                        const std::stop_token& stop, const MakeRequest& make,
                        const ChunkDone& done) {
  const int64_t n_open = windows_in_work(chunks, n_batch);
  OpenRequests open(engine);
  int64_t next = 0;
  for (int64_t chunk = 0; chunk < chunks.n_chunk; ++chunk) {
    while (next < chunks.n_chunk && open.size() < n_open && !stop.stop_requested()) {
      Request request = make(next);
      request.prompt = chunks.input(next++);
      request.max_tokens = 0;
      INFER_TRY(open.submit(std::move(request)));
    }
    if (stop.stop_requested()) return make_error(ErrorCode::kCancelled, "interrupted");
    const auto response = open.wait_first(stop);
    if (stop.stop_requested()) return make_error(ErrorCode::kCancelled, "interrupted");
    if (!response.ok()) return response.error();
    INFER_TRY(done(chunk, *response));
  }
  return {};
}

}  // namespace infer::eval
