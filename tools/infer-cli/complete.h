#pragma once

#include <string>
#include <vector>

#include "core/engine.h"
#include "tools/infer-cli/interrupts.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {

/// Continues one prompt and prints what comes of it; gives the exit code.
int complete(const CliOptions& options, Engine& engine, std::vector<TokenId> prompt,
             Interrupts& interrupts);

/// --print-prompt: the text as it stands, then a line of ids as --prompt-ids takes them; with
/// --json one object.
int print_prompt(const CliOptions& options, const std::string& text,
                 const std::vector<TokenId>& ids);

}  // namespace infer::tools
