#include "core/eval/kl_divergence.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/eval/log_prob_rows.h"

namespace infer::eval {
namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;

/// Rows of a window, as the base has them.
using BaseRows = std::vector<uint16_t>;

size_t rows_len(const TokenChunks& c, int64_t n_vocab) {
  return static_cast<size_t>(c.rows_a_chunk() * log_prob_row_len(n_vocab));
}

/// Windows of rows are what takes memory here: a flag decides how much, so it can be too much.
Result<void> check_memory(const TokenChunks& c, int64_t n_vocab, int64_t n_batch) {
  constexpr int64_t kMaxBytes = int64_t{16} << 30;
  const int64_t n_bytes =
      windows_in_work(c, n_batch) * static_cast<int64_t>(rows_len(c, n_vocab) * sizeof(uint16_t));
  if (n_bytes <= kMaxBytes) return {};
  return make_error(kInvalid,
                    "windows of {} tokens by {} log-probabilities each take {} MiB: use a smaller "
                    "context",
                    c.n_ctx, n_vocab, n_bytes >> 20);
}

/// A request that packs the judged rows of a window into `out`, and their -log p into `nll`.
Request packing_request(const TokenChunks& c, int64_t chunk, int64_t n_vocab, BaseRows* out,
                        std::vector<double>* nll) {
  nll->reserve(static_cast<size_t>(c.rows_a_chunk()));  // a callback may not throw
  Request r;
  r.logits_from = static_cast<int32_t>(c.n_context);
  r.on_logits = [&c, chunk, out, nll, len = log_prob_row_len(n_vocab)](const LogitsRow& row) {
    const auto at = static_cast<size_t>((row.pos - c.n_context) * len);
    nll->push_back(pack_log_probs(row, c.target(chunk, row.pos),
                                  std::span(*out).subspan(at, static_cast<size_t>(len))));
  };
  return r;
}

void add(const RowDivergence& row, Divergence* all) {
  all->nll.add(row.nll);
  all->nll_base.add(row.nll_base);
  all->sum_nll_nll_base += row.nll * row.nll_base;
  all->kld.add(row.kld);
  all->p_diff.add(row.p_diff);
  all->p_diff_sq.add(row.p_diff * row.p_diff);
  all->n_same_top += row.same_top ? 1 : 0;
  all->klds.push_back(static_cast<float>(row.kld));
  all->p_diffs.push_back(static_cast<float>(row.p_diff));
}

/// What is kept of a window while it is computed.
struct Window {
  BaseRows base;
  std::vector<RowDivergence> rows;
};

using FillBase = std::function<Result<void>(int64_t chunk, BaseRows* out)>;

Result<Divergence> measure(Engine& engine, const TokenChunks& c, int64_t n_vocab,
                           const DivergenceOptions& o, const FillBase& fill) {
  INFER_TRY(check_memory(c, n_vocab, o.n_batch));
  Divergence all;
  std::map<int64_t, Window> open;  // addresses stay
  std::optional<Error> problem;    // of the base, met while requests are made
  const auto make = [&](int64_t chunk) {
    Window& w = open[chunk];
    w.base.resize(rows_len(c, n_vocab));
    w.rows.reserve(static_cast<size_t>(c.rows_a_chunk()));  // a callback may not throw
    if (!problem) {
      if (auto filled = fill(chunk, &w.base); !filled.ok()) problem = std::move(filled).error();
    }
    Request r;
    r.logits_from = static_cast<int32_t>(c.n_context);
    r.on_logits = [&c, chunk, window = &w, len = log_prob_row_len(n_vocab)](const LogitsRow& row) {
      const auto at = static_cast<size_t>((row.pos - c.n_context) * len);
      window->rows.push_back(compare_log_probs(
          row, c.target(chunk, row.pos),
          std::span<const uint16_t>(window->base).subspan(at, static_cast<size_t>(len))));
    };
    return r;
  };
  const auto done = [&](int64_t chunk, const Response&) -> Result<void> {
    if (problem) return *std::move(problem);
    const auto node = open.extract(chunk);
    for (const RowDivergence& row : node.mapped().rows) {
      if (!std::isfinite(row.kld) || !std::isfinite(row.nll))
        return make_error(ErrorCode::kNumeric, "window {}: log p of a token is {}, divergence {}",
                          chunk + 1, -row.nll, row.kld);
      add(row, &all);
    }
    return o.on_chunk ? o.on_chunk(chunk + 1, all) : Result<void>();
  };
  INFER_TRY(run_chunks(engine, c, o.n_batch, o.stop, make, done));
  return all;
}

Result<void> check_vocab(const Engine& engine, int64_t n_vocab, std::string_view base) {
  const int64_t n = engine.n_vocab();
  if (n == n_vocab) return {};
  return make_error(kInvalid, "{}: has a vocabulary of {}, the model one of {}", base, n_vocab, n);
}

}  // namespace

double Divergence::covariance() const {
  if (n() < 2) return 0.0;
  const auto count = static_cast<double>(n());
  return (sum_nll_nll_base / count - nll.mean() * nll_base.mean()) / (count - 1.0);
}

double Divergence::log_ratio_error() const {
  const double a = nll.error(), b = nll_base.error();
  return std::sqrt(std::max(0.0, a * a + b * b - 2.0 * covariance()));
}

double Divergence::rms_p_diff() const { return std::sqrt(p_diff_sq.mean()); }

double Divergence::rms_p_diff_error() const {
  const double rms = rms_p_diff();
  return rms > 0.0 ? 0.5 / rms * p_diff_sq.error() : 0.0;
}

Result<Divergence> measure_divergence(Engine& engine, const KlBaseReader& base,
                                      const DivergenceOptions& o) {
  INFER_TRY(check_vocab(engine, base.n_vocab(), base.path()));
  TokenChunks c = base.chunks();
  if (c.n_ctx > engine.n_ctx())
    return make_error(kInvalid, "{}: was computed with a context of {}, this one is {}: use -c {}",
                      base.path(), c.n_ctx, engine.n_ctx(), c.n_ctx);
  if (o.max_chunks >= 0) c.n_chunk = std::min(c.n_chunk, o.max_chunks);
  if (c.n_chunk < 1) return make_error(kInvalid, "--chunks {}: nothing to do", o.max_chunks);
  const text::SpecialIds& special = engine.tokenizer().special();
  if (special.add_bos) c.bos = special.bos;
  return measure(engine, c, base.n_vocab(), o,
                 [&](int64_t chunk, BaseRows* out) { return base.read(chunk, *out); });
}

Result<Divergence> measure_divergence(Engine& engine, Engine& base, const TokenChunks& c,
                                      const DivergenceOptions& o) {
  const int64_t n_vocab = base.n_vocab();
  INFER_TRY(check_vocab(engine, n_vocab, "the base model"));
  return measure(engine, c, n_vocab, o, [&](int64_t chunk, BaseRows* out) -> Result<void> {
    std::vector<double> nll;
    Request r = packing_request(c, chunk, n_vocab, out, &nll);
    r.prompt = c.input(chunk);
    r.max_tokens = 0;
    INFER_ASSIGN(const RequestId id, base.submit(std::move(r)));
    const std::stop_callback on_stop(o.stop, [&] { base.cancel(id); });
    INFER_TRY(base.wait(id));
    return {};
  });
}

Result<MeanError> write_base(Engine& engine, const TokenChunks& c, int64_t n_batch,
                             const std::stop_token& stop, KlBaseWriter* out,
                             const BaseChunkDone& on_chunk) {
  const int64_t n_vocab = engine.n_vocab();
  INFER_TRY(check_memory(c, n_vocab, n_batch));
  struct Packed {
    BaseRows rows;
    std::vector<double> nll;
  };
  std::map<int64_t, Packed> open;
  MeanError all;
  const auto make = [&](int64_t chunk) {
    Packed& p = open[chunk];
    p.rows.resize(rows_len(c, n_vocab));
    return packing_request(c, chunk, n_vocab, &p.rows, &p.nll);
  };
  const auto done = [&](int64_t chunk, const Response&) -> Result<void> {
    const auto node = open.extract(chunk);
    for (const double nll : node.mapped().nll) {
      if (!std::isfinite(nll))
        return make_error(ErrorCode::kNumeric, "window {}: log p of a token is {}", chunk + 1,
                          -nll);
      all.add(nll);
    }
    INFER_TRY(out->append(node.mapped().rows));
    return on_chunk ? on_chunk(chunk + 1, all) : Result<void>();
  };
  INFER_TRY(run_chunks(engine, c, n_batch, stop, make, done));
  return all;
}

float percentile(std::span<const float> sorted, double share) {
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto i = static_cast<size_t>(at);
  const double part = at - static_cast<double>(i);
  const float next = sorted[std::min(i + 1, sorted.size() - 1)];
  return static_cast<float>((1.0 - part) * sorted[i] + part * next);
}

}  // namespace infer::eval
