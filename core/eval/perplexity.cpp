#include "core/eval/perplexity.h"

#include <cmath>

#include "core/base/error.h"

namespace infer::eval {

double Perplexity::value() const { return std::exp(nll.mean()); }
double Perplexity::error() const { return value() * nll.error(); }

Result<Perplexity> measure_perplexity(Engine& engine, const TokenChunks& chunks,
                                      const PerplexityOptions& o) {
  Perplexity all;
  const auto make = [&](int64_t chunk) {
    Request r;
    for (int64_t row = chunks.n_context; row < chunks.n_ctx - 1; ++row)
      r.targets.push_back({static_cast<int32_t>(row), chunks.target(chunk, row)});
    return r;
  };
  const auto done = [&](int64_t chunk, const Response& response) -> Result<void> {
    for (const float log_p : response.target_logprobs) {
      if (!std::isfinite(log_p))
        return make_error(ErrorCode::kNumeric, "window {}: log p of a token is {}", chunk + 1,
                          log_p);
      all.nll.add(-static_cast<double>(log_p));
    }
    return o.on_chunk ? o.on_chunk(chunk + 1, all) : Result<void>();
  };
  INFER_TRY(run_chunks(engine, chunks, o.n_batch, o.stop, make, done));
  return all;
}

}  // namespace infer::eval
