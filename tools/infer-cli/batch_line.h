#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/engine.h"
#include "tools/infer-cli/chat_format.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {

/// What the lines of a batch are read with.
struct BatchContext {
  const CliOptions& options;
  const text::Tokenizer& tokenizer;
  Result<ChatFormat> chat;  ///< for "messages"
  Request base;             ///< what a line does not say; seed: of line 1
};

/// One line of a batch. `id` is there even where the rest is wrong: the line's own, or its number.
struct BatchLine {
  nlohmann::ordered_json id;
  Result<Request> request;
  std::vector<std::string> unknown_keys;
};

/// Reads a JSON object: id (string or integer), one of prompt (text), prompt_ids, messages
/// ([{role, content}]), and max_tokens, temperature, top_k, top_p, min_p, seed, stop (string or
/// list), ignore_eos. `number` counts lines from 1; without a seed of its own the line has the seed
/// of the flags + number - 1. Errors name the key and its value.
BatchLine parse_batch_line(const std::string& line, int64_t number, const BatchContext& context);

}  // namespace infer::tools
