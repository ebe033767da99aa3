#include <cstdio>
#include <exception>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/common/args.h"
#include "tools/common/model_options.h"
#include "tools/infer-bench/command.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-bench";

int run(int argc, char** argv) {
  CLI::App app(
      "Measures speed: a model through the engine, the limits of this machine, one kernel, two\n"
      "commands against each other. Results go to stdout, everything else to stderr.",
      kProgram);
  app.require_subcommand(1);
  const std::vector<Command> commands = {add_run(app), add_roofline(app), add_op(app),
                                         add_compare(app)};
  std::vector<Alias> aliases = model_aliases();
  aliases.push_back({"-ub", "--ubatch-size"});
  if (const int code = parse_args(app, normalise_args(argc, argv, aliases)); code >= 0) return code;
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    const Result<void> done = command.run();
    if (!done.ok()) return report_error(kProgram, done.error());
  }
  return kExitOk;
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  try {
    return infer::tools::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "infer-bench: error: %s\n", e.what());
    return infer::tools::kExitFailure;
  }
}
