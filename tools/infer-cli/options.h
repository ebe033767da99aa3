#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "tools/common/model_options.h"
#include "tools/common/sampling_options.h"
#include "tools/common/session_options.h"

namespace infer::tools {

struct CliOptions {
  ModelOptions model;
  SessionOptions session;
  std::optional<std::string> prompt, prompt_file, prompt_ids;
  int64_t n_predict = -1;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool no_special = false;  ///< special tokens in the prompt are plain text
  bool no_escape = false;
  bool json = false;
  int n_logprobs = 0;
  int n_prompt_logprobs = 0;
  bool no_cnv = false;
  bool verbose = false;
  bool dump_plan = false;
};

/// -1: go on; otherwise the exit code to leave with.
int parse_cli(int argc, char** argv, CliOptions* options);

/// The prompt's ids, from -p, -f, --prompt-ids or stdin.
Result<std::vector<TokenId>> read_prompt(const CliOptions& options,
                                         const text::Tokenizer& tokenizer);

}  // namespace infer::tools
