#include <algorithm>
#include <string_view>

#include "tools/common/docs/command_doc.h"

namespace infer::tools {
namespace {

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : separator) + part;
  return out;
}

std::vector<std::string> flag_names(const CommandDoc& command) {
  std::vector<std::string> names;
  for (const FlagDoc& flag : command.flags)
    names.insert(names.end(), flag.names.begin(), flag.names.end());
  return names;
}

/// infer-cli -> _infer_cli
std::string function_name(const std::string& program) {
  std::string name = "_" + program;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// The text before what only explains it further; completions have one line a flag.
std::string summary(const std::string& help) {
  const std::string line = help.substr(0, help.find('\n'));
  return line.substr(0, std::min(line.find("; "), line.find(" (")));
}

std::string escape(const std::string& text, const char* special) {
  std::string out;
  for (char c : text) {
    if (std::string_view(special).find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/// In single quotes, as sh reads them.
std::string quote(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

/// File names keep their slashes and quotes when readline knows that they are names.
constexpr const char* kBashFiles =
    "compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n";

std::string bash_reply(const std::vector<std::string>& words) {
  return "mapfile -t COMPREPLY < <(compgen -W " + quote(join(words, " ")) + " -- \"$cur\")\n";
}

/// What the value of the flag before the cursor can be.
std::string bash_values(const CommandDoc& command) {
  std::string files, anything, out;
  const auto add = [](std::string* list, const FlagDoc& flag) {
    *list += (list->empty() ? "" : "|") + join(flag.names, "|");
  };
  for (const FlagDoc& flag : command.flags) {
    if (flag.value.empty()) continue;
    if (!flag.choices.empty()) {
      out += "    " + join(flag.names, "|") + ")\n      " + bash_reply(flag.choices) +
             "      return ;;\n";
    } else {
      add(flag.is_file ? &files : &anything, flag);
    }
  }
  if (!files.empty()) out += "    " + files + ")\n      " + kBashFiles + "      return ;;\n";
  if (!anything.empty()) out += "    " + anything + ")\n      return ;;\n";
  return out.empty() ? "" : "  case $prev in\n" + out + "  esac\n";
}

/// Flags after a dash, else subcommands, and files if there is a positional.
std::string bash_words(const CommandDoc& command) {
  std::vector<std::string> commands;
  for (const CommandDoc& below : command.commands) commands.push_back(below.name);
  std::string rest = "  return\n";
  if (!commands.empty() && !command.positionals.empty()) {
    rest = "  compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -W " +
           quote(join(commands, " ")) + " -- \"$cur\"; compgen -f -- \"$cur\")\n";
  } else if (!commands.empty()) {
    rest = "  " + bash_reply(commands);
  } else if (!command.positionals.empty()) {
    rest = std::string("  ") + kBashFiles;
  }
  return "  if [[ $cur == -* ]]; then\n    " + bash_reply(flag_names(command)) +
         "    return\n  fi\n" + rest;
}

std::string bash_function(const std::string& name, const CommandDoc& command) {
  std::string out = name + "() {\n  local cur=${COMP_WORDS[COMP_CWORD]}";
  out += " prev=${COMP_WORDS[COMP_CWORD - 1]}\n  COMPREPLY=()\n";
  if (!command.commands.empty()) {
    out += "  local i\n  for ((i = 1; i < COMP_CWORD; ++i)); do\n    case ${COMP_WORDS[i]} in\n";
    for (const CommandDoc& below : command.commands)
      out += "      " + below.name + ") " + name + function_name(below.name) + "; return ;;\n";
    out += "    esac\n  done\n";
  }
  return out + bash_values(command) + bash_words(command) + "}\n";
}

/// One argument of zsh's _arguments.
std::string zsh_flag(const FlagDoc& flag) {
  const std::string text = escape(summary(flag.help), "[]\\");
  std::string value;
  if (!flag.value.empty()) {
    value = ":" + escape(flag.value, ":") + ":";
    if (!flag.choices.empty()) {
      value += "(" + join(flag.choices, " ") + ")";
    } else {
      value += flag.is_file ? "_files" : " ";
    }
  }
  std::string out;
  for (const std::string& name : flag.names) {
    std::string entry = flag.repeats ? "*" : "(" + join(flag.names, " ") + ")";
    entry.append(name).append("[").append(text).append("]").append(value);
    out += " \\\n    " + quote(entry);
  }
  return out;
}

std::string zsh_function(const std::string& name, const CommandDoc& command) {
  std::string out = name + "() {\n  local context state state_descr line\n  typeset -A opt_args\n";
  out += "  _arguments -s -S";
  if (!command.commands.empty()) out += " -C";
  for (const FlagDoc& flag : command.flags) out += zsh_flag(flag);
  // With subcommands the first word may be one of them or a file.
  const bool mixed = !command.commands.empty() && !command.positionals.empty();
  for (const FlagDoc& positional : mixed ? std::vector<FlagDoc>{} : command.positionals)
    out += " \\\n    " + quote(":" + escape(positional.names[0], ":") + ":_files");
  if (command.commands.empty()) return out + "\n}\n";
  out +=
      " \\\n    '1:command:->command' '*::argument:->argument'\n  case $state in\n    command)\n";
  out += "      local -a commands=(";
  for (const CommandDoc& below : command.commands)
    out += " " + quote(below.name + ":" + summary(below.text));
  out += ")\n      _describe command commands";
  out += mixed ? "\n      _files ;;\n" : " ;;\n";
  out += "    argument)\n      case $words[1] in\n";
  for (const CommandDoc& below : command.commands)
    out += "        " + below.name + ") " + name + function_name(below.name) + " ;;\n";
  if (mixed) out += "        *) _files ;;\n";
  return out + "      esac ;;\n  esac\n}\n";
}

std::string fish_quote(const std::string& text) { return "'" + escape(text, "\\'") + "'"; }

std::string fish_flags(const std::string& start, const CommandDoc& command) {
  std::string out;
  for (const FlagDoc& flag : command.flags) {
    out += start;
    for (const std::string& name : flag.names)
      out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    if (!flag.choices.empty()) {
      out += " -x -a " + fish_quote(join(flag.choices, " "));
    } else if (!flag.value.empty()) {
      out += flag.is_file ? " -r -F" : " -x";
    }
    out += " -d " + fish_quote(summary(flag.help)) + "\n";
  }
  return out;
}

}  // namespace

std::string bash_completion(const CommandDoc& command) {
  const std::string name = function_name(command.name);
  std::string out = "# bash completion of " + command.name + ", made from its flags\n";
  for (const CommandDoc& below : command.commands)
    out += bash_function(name + function_name(below.name), below);
  return out + bash_function(name, command) + "complete -F " + name + " " + command.name + "\n";
}

std::string zsh_completion(const CommandDoc& command) {
  const std::string name = function_name(command.name);
  std::string out = "#compdef " + command.name + "\n# made from its flags\n";
  for (const CommandDoc& below : command.commands)
    out += zsh_function(name + function_name(below.name), below);
  return out + zsh_function(name, command) + name + " \"$@\"\n";
}

std::string fish_completion(const CommandDoc& command) {
  const std::string start = "complete -c " + command.name;
  std::string out = "# fish completion of " + command.name + ", made from its flags\n";
  if (command.positionals.empty()) out += start + " -f\n";
  if (command.commands.empty()) return out + fish_flags(start, command);
  std::string names;
  for (const CommandDoc& below : command.commands) names += " " + below.name;
  // Words that are no command do not end the flags of a program that takes files.
  out += fish_flags(
      start + (command.positionals.empty() ? std::string(" -n __fish_use_subcommand")
                                           : " -n 'not __fish_seen_subcommand_from" + names + "'"),
      command);
  for (const CommandDoc& below : command.commands) {
    out += start + " -n __fish_use_subcommand -a " + below.name + " -d " +
           fish_quote(summary(below.text)) + "\n";
    const std::string seen = start + " -n '__fish_seen_subcommand_from " + below.name + "'";
    if (!below.positionals.empty()) out += seen + " -F\n";
    out += fish_flags(seen, below);
  }
  return out;
}

}  // namespace infer::tools
