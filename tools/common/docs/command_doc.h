#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

/// Shell completions and man pages from the flags that a program declares, so that they never say
/// anything else than its --help.
namespace infer::tools {

struct FlagDoc {
  std::vector<std::string> names;  ///< "-m", "--model"; of a positional its one name
  std::string value;               ///< "TEXT", "INT"; empty: takes no value
  std::vector<std::string> choices;
  std::string range;  ///< "0 - 1024"
  std::string help;
  std::string default_value;
  bool required = false, repeats = false;
  bool is_file = false;  ///< the value names a file or folder
};

struct CommandDoc {
  std::string name;
  std::string text;  ///< what it is for; the first line is a sentence
  std::vector<FlagDoc> flags, positionals;
  std::vector<CommandDoc> commands;
};

/// Everything that --help shows, option groups and subcommands included.
CommandDoc describe(const CLI::App& app);

std::string bash_completion(const CommandDoc& command);
std::string zsh_completion(const CommandDoc& command);
std::string fish_completion(const CommandDoc& command);
/// In roff, for section 1.
std::string man_page(const CommandDoc& command);

/// `PROGRAM --completion bash|zsh|fish` and `PROGRAM --man-page`, which --help does not show:
/// prints and gives the exit code; -1 when the arguments are something else.
int print_docs(const CLI::App& app, const std::vector<std::string>& args);

}  // namespace infer::tools
