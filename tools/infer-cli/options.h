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
  bool cnv = false;     ///< -cnv
  bool no_cnv = false;  ///< -no-cnv
  bool single_turn = false;
  std::optional<std::string> system, system_file;
  std::string chat_template;       ///< a built-in name or a file
  std::string chat_template_file;  ///< a file
  bool print_prompt = false;
  std::optional<std::string> batch;  ///< a file of JSON lines; "-": standard input
  std::string out = "-";
  int max_seqs = 0;  ///< 0: 8 for a batch, else as many as -np asks for, 8 at most
  int n_parallel = 1;
  bool verbose = false;
  bool dump_plan = false;

  bool has_prompt() const { return prompt || prompt_file || prompt_ids; }
  /// A conversation is asked for; without that it opens by itself on a terminal.
  bool asks_conversation() const { return cnv || single_turn || system || system_file; }
};

/// -1: go on; otherwise the exit code to leave with.
int parse_cli(int argc, char** argv, CliOptions* options);

/// The text of -p, -f or standard input. Errors: kInvalidArgument where there is none.
Result<std::string> read_prompt_text(const CliOptions& options);
/// The ids of --prompt-ids.
Result<std::vector<TokenId>> parse_prompt_ids(const std::string& list, int32_t n_vocab);
/// A text to be completed. Errors: kInvalidArgument when nothing comes of it.
Result<std::vector<TokenId>> encode_prompt(const CliOptions& options,
                                           const text::Tokenizer& tokenizer,
                                           const std::string& text);
/// A request with everything that flags say, but no prompt; with -s -1 its seed is a new one.
Request make_request(const CliOptions& options);

}  // namespace infer::tools
