#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "tools/common/args.h"
#include "tools/common/model_options.h"

namespace CLI {
class App;
}

namespace infer::tools {

/// What the program is asked to do.
enum class Mode { kPerplexity, kSaveBase, kDivergence, kMultipleChoice, kHellaswag, kWinogrande };

struct PerplexityArgs {
  ModelOptions model;
  std::string text;  ///< -f: the text, or the tasks
  int64_t chunks = -1, stride = 0;
  int n_parallel = 64;

  bool kl_divergence = false;
  std::string kl_base;  ///< --kl-divergence-base
  std::string against;

  bool multiple_choice = false, hellaswag = false, winogrande = false;
  std::string task_file;  ///< -bf
  int64_t tasks = -1;     ///< -1: not said
  std::string subset;
  std::string style = "answers";
  int shots = 0;
  std::string dev;

  bool json = false;
  std::string jsonl, svg, svg_other, resume;

  Mode mode() const;
  bool has_tasks() const { return multiple_choice || hellaswag || winogrande; }
  /// Tasks to take; 0: all.
  int64_t n_task() const { return tasks >= 0 ? tasks : hellaswag ? 400 : 0; }
};

void add_perplexity_options(CLI::App& app, PerplexityArgs* args);
std::vector<Alias> perplexity_aliases();
/// What flags cannot say alone. Errors: kInvalidArgument naming the flags.
Result<void> check_args(const PerplexityArgs& args);

}  // namespace infer::tools
