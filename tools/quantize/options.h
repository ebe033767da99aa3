#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"
#include "gguf/reader.h"
#include "quantize/recipe.h"

namespace CLI {
class App;
}

/// What quantize is asked to do, spelled as llama.cpp spells it.
namespace infer::tools {

struct QuantizeArgs {
  std::string in;                 ///< a GGUF, or a folder
  std::vector<std::string> rest;  ///< [OUT] TYPE [THREADS]
  int n_threads = 0;              ///< -t; 0: one a CPU
  std::string isa;
  std::string imatrix;
  std::vector<std::string> tensor_types, override_kv;
  std::string output_type, embedding_type;
  bool allow_requantize = false, leave_output = false, pure = false, keep_split = false;
  bool plan = false, strict = false, best = false, verbose = false;
  std::string report;
};

void add_quantize_options(CLI::App& app, QuantizeArgs* args);

/// The same, understood.
struct QuantizeJob {
  std::string in, out;
  int n_threads = 0;
  quantize::RecipeOptions recipe;
  std::vector<gguf::KeyOverride> overrides;
};
/// Without OUT the output is ggml-model-<TYPE>.gguf beside the input (in it, if it is a folder), as
/// llama.cpp names it. Errors: kInvalidArgument naming the flag.
Result<QuantizeJob> read_job(const QuantizeArgs& args);

}  // namespace infer::tools
