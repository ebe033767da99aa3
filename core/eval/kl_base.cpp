#include "core/eval/kl_base.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/eval/log_prob_rows.h"

namespace infer::eval {
namespace {

constexpr std::array<char, 8> kMagic = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};
constexpr int64_t kMaxCtx = int64_t{1} << 24;
constexpr int64_t kMaxVocab = int64_t{1} << 24;

struct Numbers {
  std::array<char, 8> magic;
  uint32_t n_ctx;
  int32_t n_vocab, n_chunk;
};
constexpr size_t kNumbersBytes = 20;  // without the padding at the end of the struct

int64_t rows_bytes(const TokenChunks& c, int64_t n_vocab) {
  return c.rows_a_chunk() * log_prob_row_len(n_vocab) * static_cast<int64_t>(sizeof(uint16_t));
}

}  // namespace

Result<std::unique_ptr<KlBaseReader>> KlBaseReader::open(const std::string& path) {
  INFER_ASSIGN(InputFile file, InputFile::open(path));
  std::unique_ptr<KlBaseReader> reader(new KlBaseReader(path, std::move(file)));
  INFER_TRY(reader->read_header());
  return reader;
}

Result<void> KlBaseReader::read_header() {
  const auto corrupt = [&](std::string_view what, int64_t value) {
    return make_error(ErrorCode::kCorrupt, "{}: {} = {}", path_, what, value);
  };
  Numbers n{};
  if (file_.size() < static_cast<int64_t>(kNumbersBytes))
    return make_error(ErrorCode::kCorrupt, "{}: {} bytes are no file of log-probabilities", path_,
                      file_.size());
  INFER_TRY(file_.read_at(0, std::as_writable_bytes(std::span(&n, 1)).first(kNumbersBytes)));
  if (n.magic != kMagic)
    return make_error(ErrorCode::kCorrupt, "{}: is no file of log-probabilities (no '_logits_')",
                      path_);
  if (n.n_ctx < 4 || n.n_ctx > kMaxCtx) return corrupt("n_ctx", n.n_ctx);
  if (n.n_vocab < 1 || n.n_vocab > kMaxVocab) return corrupt("n_vocab", n.n_vocab);
  if (n.n_chunk < 1) return corrupt("n_chunk", n.n_chunk);
  chunks_.n_ctx = chunks_.stride = n.n_ctx;
  chunks_.n_chunk = n.n_chunk;
  chunks_.n_context = chunks_.n_ctx / 2;
  n_vocab_ = n.n_vocab;
  const int64_t n_tok = chunks_.n_chunk * chunks_.n_ctx;  // < 2^31 * 2^24
  rows_begin_ = static_cast<int64_t>(kNumbersBytes) + n_tok * static_cast<int64_t>(sizeof(TokenId));
  const auto rows = checked_mul(rows_bytes(chunks_, n_vocab_), chunks_.n_chunk);
  const auto end = rows ? checked_add(*rows, rows_begin_) : std::nullopt;
  if (!end || *end > file_.size()) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: has {} bytes, too few for {} windows of {} tokens and a vocabulary of {}", path_,
        file_.size(), n.n_chunk, n.n_ctx, n.n_vocab);
  }
  chunks_.tokens.resize(static_cast<size_t>(n_tok));
  INFER_TRY(file_.read_at(kNumbersBytes, std::as_writable_bytes(std::span(chunks_.tokens))));
  for (const TokenId id : chunks_.tokens) {
    if (id < 0 || id >= n_vocab_) return corrupt("a token", id);
  }
  return {};
}

Result<void> KlBaseReader::read(int64_t chunk, std::span<uint16_t> out) const {
  const int64_t n_bytes = rows_bytes(chunks_, n_vocab_);
  INFER_TRY(file_.read_at(rows_begin_ + chunk * n_bytes, std::as_writable_bytes(out)));
  const int64_t len = log_prob_row_len(n_vocab_);
  for (int64_t row = 0; row < chunks_.rows_a_chunk(); ++row) {
    float header[2];
    std::memcpy(header, out.data() + row * len, sizeof(header));
    // The highest log p is scale * 65535 + least: 0 or below, but for rounding.
    const double most = 65535.0 * header[0] + header[1];
    if (!(header[0] >= 0.0f) || !std::isfinite(header[1]) || !(most <= 0.01))
      return make_error(ErrorCode::kCorrupt, "{}: window {} row {}: scale {}, least {}", path_,
                        chunk + 1, row, header[0], header[1]);
  }
  return {};
}

Result<KlBaseWriter> KlBaseWriter::create(const std::string& path, const TokenChunks& c,
                                          int64_t n_vocab) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (c.stride != c.n_ctx || c.n_context != c.n_ctx / 2)
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: a file of log-probabilities has no place for --stride", path);
  if (c.n_chunk > kMax || n_vocab > kMax)
    return make_error(ErrorCode::kUnsupported, "{}: {} windows and {} ids are too many", path,
                      c.n_chunk, n_vocab);
  INFER_ASSIGN(OutputFile file, OutputFile::create(path));
  const Numbers n{kMagic, static_cast<uint32_t>(c.n_ctx), static_cast<int32_t>(n_vocab),
                  static_cast<int32_t>(c.n_chunk)};
  INFER_TRY(file.write(std::as_bytes(std::span(&n, 1)).first(kNumbersBytes)));
  const auto n_tok = static_cast<size_t>(c.n_chunk * c.n_ctx);
  INFER_TRY(file.write(std::as_bytes(std::span(c.tokens).first(n_tok))));
  return KlBaseWriter(std::move(file));
}

}  // namespace infer::eval
