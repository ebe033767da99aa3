#include <algorithm>
#include <cctype>

#include "tools/common/docs/command_doc.h"

namespace infer::tools {
namespace {

/// Text for roff: nothing in it is a request or an escape, and dashes stay ASCII.
std::string roff(const std::string& text) {
  std::string out;
  bool starts_line = true;
  for (char c : text) {
    if (starts_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\n') {
      out += "\n.br\n";
    } else {
      out += c;
    }
    starts_line = c == '\n';
  }
  return out;
}

std::string bold(const std::string& text) { return "\\fB" + roff(text) + "\\fR"; }
std::string italic(const std::string& text) { return "\\fI" + roff(text) + "\\fR"; }

std::string capitalised(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string sentence(const std::string& text) {
  return roff(capitalised(text)) + (text.ends_with('.') ? "\n" : ".\n");
}

std::string flag_entry(const FlagDoc& flag, bool positional) {
  std::string out = ".TP\n";
  for (size_t i = 0; i < flag.names.size(); ++i)
    out += (i > 0 ? ", " : "") + (positional ? italic(flag.names[i]) : bold(flag.names[i]));
  if (!flag.value.empty() && !positional) out += " " + italic(flag.value);
  out += "\n" + sentence(flag.help);
  const auto add = [&](const char* what, const std::string& value) {
    if (!value.empty()) out += what + (" " + roff(value)) + ".\n";
  };
  std::string choices;
  for (const std::string& c : flag.choices) choices += (choices.empty() ? "" : ", ") + c;
  add("One of", choices);
  add("Range:", flag.range);
  add("Default:", flag.default_value);
  if (flag.required && !positional) out += "Required.\n";
  return out;
}

std::string synopsis(const std::string& program, const CommandDoc& command) {
  std::string out = bold(program);
  if (!command.flags.empty()) out += " [" + italic("OPTIONS") + "]";
  for (const FlagDoc& p : command.positionals) out += " " + italic(p.names[0]);
  return out + "\n";
}

std::string options_of(const CommandDoc& command) {
  std::string out;
  for (const FlagDoc& p : command.positionals) out += flag_entry(p, /*positional=*/true);
  for (const FlagDoc& flag : command.flags) out += flag_entry(flag, /*positional=*/false);
  return out;
}

}  // namespace

std::string man_page(const CommandDoc& command) {
  std::string title = command.name;
  std::transform(title.begin(), title.end(), title.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::string first = command.text.substr(0, command.text.find('\n'));
  while (first.ends_with('.')) first.pop_back();
  if (!first.empty())
    first[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(first[0])));
  std::string out =
      ".TH " + roff(title) + " 1 \"\" \"infer " INFER_VERSION "\" \"User Commands\"\n";
  out += ".SH NAME\n" + roff(command.name) + " \\- " + roff(first) + "\n.SH SYNOPSIS\n";
  if (command.commands.empty()) out += synopsis(command.name, command);
  for (const CommandDoc& below : command.commands)
    out += synopsis(command.name + " " + below.name, below) + ".br\n";
  out += ".SH DESCRIPTION\n" + roff(command.text) + "\n.SH OPTIONS\n" + options_of(command);
  for (const CommandDoc& below : command.commands)
    out += ".SH \"" + roff(command.name + " " + below.name) + "\"\n" + sentence(below.text) +
           options_of(below);
  out += ".SH EXIT STATUS\n0 on success, 1 on failure, 2 on wrong usage, 130 when interrupted.\n";
  return out;
}

}  // namespace infer::tools
