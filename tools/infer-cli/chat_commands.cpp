#include "tools/infer-cli/chat_commands.h"

#include <fmt/format.h>

namespace infer::tools {
namespace {

struct Row {
  std::string_view name, argument, help;
  ChatCommand command;
};

constexpr Row kRows[] = {
    {"/help", "", "this list (also /?)", ChatCommand::kHelp},
    {"/exit", "", "leave (also /quit, Ctrl-D, Ctrl-C twice)", ChatCommand::kExit},
    {"/regen", "", "another answer to the last message", ChatCommand::kRegen},
    {"/clear", "", "begin anew; the system prompt stays", ChatCommand::kClear},
    {"/system", "TEXT", "set the system prompt; without TEXT show it, \"-\" for none",
     ChatCommand::kSystem},
    {"/save", "FILE", "write the conversation to a file", ChatCommand::kSave},
    {"/load", "FILE", "go on with a saved conversation", ChatCommand::kLoad},
    {"/stats", "", "tokens and speed", ChatCommand::kStats},
};
constexpr Row kAliases[] = {
    {"/?", "", "", ChatCommand::kHelp},
    {"/quit", "", "", ChatCommand::kExit},
    {"/bye", "", "", ChatCommand::kExit},
};

std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

}  // namespace

std::optional<ParsedCommand> parse_command(std::string& text) {
  if (!text.starts_with('/')) return std::nullopt;
  if (text.starts_with("//")) {
    text.erase(0, 1);
    return std::nullopt;
  }
  const size_t end = text.find_first_of(" \t\n");
  ParsedCommand out;
  out.name = text.substr(0, end);
  if (end != std::string::npos) out.argument = trimmed(std::string_view(text).substr(end));
  for (const Row& row : kRows) {
    if (row.name == out.name) out.command = row.command;
  }
  for (const Row& row : kAliases) {
    if (row.name == out.name) out.command = row.command;
  }
  return out;
}

std::string command_help() {
  std::string out;
  for (const Row& row : kRows)
    out += fmt::format("  {:<13} {}\n", fmt::format("{} {}", row.name, row.argument), row.help);
  out +=
      "  A line that ends in \\ goes on on the next; \"\"\" opens and closes a block.\n"
      "  // begins a message with a slash. Ctrl-C stops an answer.\n";
  return out;
}

}  // namespace infer::tools
