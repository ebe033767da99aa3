#pragma once

#include "core/engine.h"
#include "tools/infer-cli/chat_format.h"
#include "tools/infer-cli/interrupts.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {

/// Holds a conversation: messages from a terminal or, line by line, from a pipe. The model's text
/// goes to stdout, one answer after the other, each ended by a newline; everything else to stderr
/// or the terminal. Gives the exit code: 0, 1 after an error in a pipe or of the output, 130 when
/// left with Ctrl-C.
int run_chat(const CliOptions& options, Engine& engine, const ChatFormat& format,
             Interrupts& interrupts);

/// The prompt of a conversation whose only message is the -p or -f: for --single-turn and
/// --print-prompt.
Result<ChatPrompt> single_turn_prompt(const CliOptions& options, const Engine& engine,
                                      const ChatFormat& format);

}  // namespace infer::tools
