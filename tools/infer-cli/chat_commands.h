#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace infer::tools {

enum class ChatCommand { kHelp, kExit, kRegen, kClear, kSystem, kSave, kLoad, kStats, kUnknown };

struct ParsedCommand {
  ChatCommand command = ChatCommand::kUnknown;
  std::string name;      ///< as typed: "/save"
  std::string argument;  ///< the rest of the line without spaces around it
};

/// What a line that begins with a slash asks for; nothing for any other line. Two slashes begin a
/// message with one slash: `text` loses the first.
std::optional<ParsedCommand> parse_command(std::string& text);

/// One line a command.
std::string command_help();

}  // namespace infer::tools
