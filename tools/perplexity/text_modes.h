#pragma once

#include <stop_token>

#include "core/base/result.h"
#include "tools/perplexity/options.h"

namespace infer::tools {

/// Perplexity of a text, with the base file written where one is asked for.
Result<void> run_perplexity(const PerplexityArgs& args, const std::stop_token& stop);
/// Divergence from a base file or another model.
Result<void> run_divergence(const PerplexityArgs& args, const std::stop_token& stop);

}  // namespace infer::tools
