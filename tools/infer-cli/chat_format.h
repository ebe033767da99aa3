#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/engine.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {

struct ChatMessage {
  std::string role, content;
};

struct ChatPrompt {
  std::string text;
  std::vector<TokenId> ids;
};

/// Messages to what the model sees, up to where its answer begins. Errors: the template's.
using ChatFormat = std::function<Result<ChatPrompt>(std::span<const ChatMessage>)>;

/// Whether there is a chat template: one from a flag, or the model's own.
bool has_chat_template(const CliOptions& options, const Engine& engine);
/// That template; the engine must outlive it. A template that names the date always gets today's,
/// so that a conversation's beginning stays the same. Errors: kInvalidArgument where there is none,
/// and the template's own.
Result<ChatFormat> load_chat_format(const CliOptions& options, const Engine& engine);
/// --system or --system-prompt-file; empty: none.
Result<std::string> read_system_prompt(const CliOptions& options);

}  // namespace infer::tools
