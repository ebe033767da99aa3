#pragma once

#include <functional>

#include "core/base/result.h"

namespace CLI {
class App;
}

namespace infer::tools {

/// A subcommand: its flags are registered when it is made, run() does it and prints to stdout.
struct Command {
  CLI::App* app = nullptr;
  std::function<Result<void>()> run;
};

Command add_run(CLI::App& app);
Command add_roofline(CLI::App& app);
Command add_op(CLI::App& app);
Command add_compare(CLI::App& app);

}  // namespace infer::tools
