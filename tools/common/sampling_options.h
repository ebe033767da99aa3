#pragma once

#include <cstdint>
#include <vector>

#include "core/text/sampler_params.h"
#include "tools/common/args.h"

namespace CLI {
class App;
}

/// Flags that every program that draws tokens has, spelled as llama.cpp spells them.
namespace infer::tools {

struct SamplingOptions {
  text::SamplingParams params;  ///< all but the seed
  int64_t seed = -1;            ///< -1: a new one each time
  /// The parameters with the seed, or with a new one.
  text::SamplingParams with_seed() const;
};

/// Wrong values end the parsing with a line that names the flag.
void add_sampling_options(CLI::App& app, SamplingOptions* options);

}  // namespace infer::tools
