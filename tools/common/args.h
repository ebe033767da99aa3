#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace CLI {
class App;
}

namespace infer::tools {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

/// llama.cpp's users write long options with one dash (-tb, -no-cnv); CLI11 wants two. Returns
/// argv[1..] with the spellings of `aliases` ("-tb" -> "--threads-batch") replaced, values
/// untouched.
struct Alias {
  std::string_view from, to;
};
std::vector<std::string> normalise_args(int argc, char** argv, const std::vector<Alias>& aliases);

/// Parses; on --help or an error prints it and gives the exit code to leave with, else -1.
int parse_args(CLI::App& app, std::vector<std::string> args);

/// Prints "<program>: error: <message>" to stderr and gives the exit code: 2 for wrong usage, 1 for
/// the rest.
int report_error(std::string_view program, const Error& error);

/// What main() is: calls `run`, makes exceptions and a standard output that cannot be written (a
/// full disk, a closed pipe) errors of the program, and gives the exit code.
int run_program(std::string_view program, int (*run)(int argc, char** argv), int argc, char** argv);

}  // namespace infer::tools
