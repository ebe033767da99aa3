#pragma once

#include <cstdint>
#include <stop_token>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/engine.h"

/// A text in windows of equal length, as perplexities are measured over.
namespace infer::eval {

struct ChunkOptions {
  int64_t n_ctx = 512;      ///< tokens of a window
  int64_t stride = 0;       ///< tokens from one window to the next; 0: n_ctx
  int64_t max_chunks = -1;  ///< -1: as many as the text has
};

/// Windows of a text. In window c the model sees tokens [begin(c), begin(c) + n_ctx), the first of
/// them replaced by BOS where it wants one, and is judged on what it says of those behind
/// `n_context`.
struct TokenChunks {
  std::vector<TokenId> tokens;
  int64_t n_ctx = 0, stride = 0, n_chunk = 0;
  int64_t n_context = 0;  ///< rows [n_context, n_ctx - 1) of a window are judged
  TokenId bos = -1;       ///< -1: the first token stays

  int64_t begin(int64_t chunk) const { return chunk * stride; }
  int64_t rows_a_chunk() const { return n_ctx - 1 - n_context; }
  /// What the model reads: the window without its last token, which is only predicted.
  std::vector<TokenId> input(int64_t chunk) const;
  /// The token behind row `row` of a window.
  TokenId target(int64_t chunk, int64_t row) const {
    return tokens[static_cast<size_t>(begin(chunk) + row + 1)];
  }
};

/// Windows as llama-perplexity cuts them: without a stride they lie side by side and their second
/// halves are judged; with one they overlap and their last `stride` tokens are.
/// Errors: kInvalidArgument for a text of less than two windows, or numbers that make none.
Result<TokenChunks> cut_text(std::string_view input, const text::Tokenizer& tokenizer,
                             const ChunkOptions& options);

/// Windows that run_chunks has in work at the same time.
int64_t windows_in_work(const TokenChunks& chunks, int64_t n_batch);

/// Computes all windows on the engine, several at a time, and calls `make` for the request of each
/// (prompt and max_tokens are set afterwards) and `done` with the responses in order, both on the
/// caller's thread. Errors: those of the engine and of `done`; kCancelled when stopped.
using MakeRequest = std::function<Request(int64_t chunk)>;
using ChunkDone = std::function<Result<void>(int64_t chunk, const Response& response)>;
Result<void> run_chunks(Engine& engine, const TokenChunks& chunks, int64_t n_batch,
                        const std::stop_token& stop, const MakeRequest& make,
                        const ChunkDone& done);

}  // namespace infer::eval
