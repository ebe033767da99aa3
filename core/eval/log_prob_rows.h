#pragma once

#include <cstdint>
#include <span>

#include "core/engine.h"

/// Log-probabilities of a whole vocabulary in 16 bits each, as llama-perplexity keeps them
/// (--kl-divergence-base): u16 q with log p = scale * q + least, the lowest 16 below the best. What
/// lies lower counts as nothing.
namespace infer::eval {

/// u16 that a row takes: two f32 (scale, least), then one for each id, padded to an even number.
int64_t log_prob_row_len(int64_t n_vocab);

/// Shapes: out [log_prob_row_len(n_vocab)]. Gives -log p of `token`.
double pack_log_probs(const LogitsRow& row, TokenId token, std::span<uint16_t> out);

/// What a model says of one token, against what the base said of it.
struct RowDivergence {
  double nll = 0.0, nll_base = 0.0;  ///< -log p of the token that came
  double kld = 0.0;                  ///< sum of p_base * log(p_base / p)
  double p_diff = 0.0;               ///< p - p_base of the token that came
  bool same_top = false;             ///< the likeliest token is the same
};
/// Shapes: base [log_prob_row_len(n_vocab)].
RowDivergence compare_log_probs(const LogitsRow& row, TokenId token,
                                std::span<const uint16_t> base);

}  // namespace infer::eval
