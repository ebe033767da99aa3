#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/input_file.h"
#include "core/base/output_file.h"
#include "core/base/result.h"
#include "core/eval/token_chunks.h"

/// llama-perplexity's file of a base model's log-probabilities (--kl-divergence-base,
/// --save-all-logits):
/// "_logits_", u32 n_ctx, i32 n_vocab, i32 n_chunk, i32 tokens [n_chunk][n_ctx], then for each
/// window n_ctx - 1 - n_ctx / 2 rows of log_prob_rows.h. Source: llama.cpp, tools/perplexity.
namespace infer::eval {

class KlBaseReader {
 public:
  /// Errors: kNotFound, kIo, kCorrupt naming the file and the number that is wrong.
  static Result<std::unique_ptr<KlBaseReader>> open(const std::string& path);

  /// Its windows; `bos` is not in the file and is the caller's to set.
  const TokenChunks& chunks() const { return chunks_; }
  int64_t n_vocab() const { return n_vocab_; }
  const std::string& path() const { return path_; }
  /// Rows of a window, one after the other. Shapes: out [rows_a_chunk * log_prob_row_len].
  /// Errors: kIo, kCorrupt for a row whose numbers make no log-probabilities.
  Result<void> read(int64_t chunk, std::span<uint16_t> out) const;

 private:
  KlBaseReader(std::string path, InputFile file) : path_(std::move(path)), file_(std::move(file)) {}
  Result<void> read_header();

  std::string path_;
  InputFile file_;
  TokenChunks chunks_;
  int64_t n_vocab_ = 0, rows_begin_ = 0;
};

class KlBaseWriter {
 public:
  /// Errors: kIo; kInvalidArgument for windows that the format cannot hold (a stride).
  static Result<KlBaseWriter> create(const std::string& path, const TokenChunks& chunks,
                                     int64_t n_vocab);
  Result<void> append(std::span<const uint16_t> rows) { return file_.write(std::as_bytes(rows)); }
  Result<void> finish() { return file_.finish(); }

 private:
  explicit KlBaseWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

}  // namespace infer::eval
