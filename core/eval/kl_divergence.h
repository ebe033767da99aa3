#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "core/base/result.h"
#include "core/eval/kl_base.h"
#include "core/eval/stats.h"
#include "core/eval/token_chunks.h"

/// Kullback-Leibler divergence of a model from a base model over a text: what quantising it cost.
namespace infer::eval {

/// Sums over the rows judged so far.
struct Divergence {
  MeanError nll, nll_base;  ///< -log p of each token
  MeanError kld;
  MeanError p_diff, p_diff_sq;  ///< p - p_base of each token, and its square
  double sum_nll_nll_base = 0.0;
  int64_t n_same_top = 0;
  std::vector<float> klds, p_diffs;  ///< of each row

  int64_t n() const { return nll.n(); }
  /// Covariance of the means of nll and nll_base.
  double covariance() const;
  double log_ratio() const { return nll.mean() - nll_base.mean(); }  ///< log(PPL / PPL base)
  double log_ratio_error() const;
  double rms_p_diff() const;
  double rms_p_diff_error() const;
};

struct DivergenceOptions {
  int64_t n_batch = 512;  ///< EngineOptions::n_batch of the engines
  int64_t max_chunks = -1;
  std::stop_token stop{};
  std::function<Result<void>(int64_t done, const Divergence& so_far)> on_chunk{};
};

/// Against a file. Errors: kInvalidArgument for another vocabulary or a context beyond the
/// engine's; those of run_chunks and of the reader.
Result<Divergence> measure_divergence(Engine& engine, const KlBaseReader& base,
                                      const DivergenceOptions& options);
/// Against another model, window by window, with the same rounding as by way of a file.
/// Errors: kInvalidArgument for another vocabulary; those of run_chunks.
Result<Divergence> measure_divergence(Engine& engine, Engine& base, const TokenChunks& chunks,
                                      const DivergenceOptions& options);

/// Writes a base file and gives the base model's own log-likelihoods after each window.
using BaseChunkDone = std::function<Result<void>(int64_t done, const MeanError& nll)>;
Result<MeanError> write_base(Engine& engine, const TokenChunks& chunks, int64_t n_batch,
                             const std::stop_token& stop, KlBaseWriter* out,
                             const BaseChunkDone& on_chunk);

/// The value below which `share` of the sorted values lie, between neighbours on a straight line.
/// Needs: sorted, not empty.
float percentile(std::span<const float> sorted, double share);

}  // namespace infer::eval
