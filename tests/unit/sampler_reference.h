#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/text/sampler.h"

/// What samplers should do, in f64 and by the definitions (papers and llama.cpp's documentation),
/// without any of the sampler's code.
namespace infer::text::reference {

/// A sequence as the samplers see it.
struct Past {
  std::vector<int32_t> tokens;
  std::vector<std::string> pieces;  ///< by token id; may be empty
};

/// Probabilities of all tokens, XTC's coin included; mirostat in its first state.
std::vector<double> probabilities(const std::vector<float>& logits, const SamplingParams& params,
                                  const Past& past = {});

/// Upper bound of chi-square with `dof` degrees of freedom at p = 1e-6 (Wilson and Hilferty, 1931;
/// z = 4.753).
double chi_square_limit(double dof);
/// Counts of draws against probabilities: what is impossible was never drawn, and chi-square is
/// below its limit. Rare tokens share a bin. Empty when all is well.
std::string compare(const std::vector<int>& counts, const std::vector<double>& probabilities);

}  // namespace infer::text::reference
