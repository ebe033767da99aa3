#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "core/base/result.h"
#include "core/eval/stats.h"
#include "core/eval/token_chunks.h"

/// Perplexity: e to the mean negative log-likelihood of a text's tokens.
namespace infer::eval {

/// Over the rows judged so far.
struct Perplexity {
  MeanError nll;  ///< -log p of each token, natural
  double value() const;
  double error() const;  ///< of value(): that of the mean log-likelihood, times value()
};

struct PerplexityOptions {
  int64_t n_batch = 512;  ///< EngineOptions::n_batch of the engine
  std::stop_token stop{};
  /// After each window, on the caller's thread. An error ends the run.
  std::function<Result<void>(int64_t done, const Perplexity& so_far)> on_chunk{};
};

/// Errors: those of run_chunks; kNumeric for a log-likelihood that is not finite, with its window.
Result<Perplexity> measure_perplexity(Engine& engine, const TokenChunks& chunks,
                                      const PerplexityOptions& options);

}  // namespace infer::eval
