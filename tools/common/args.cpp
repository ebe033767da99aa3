#include "tools/common/args.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>

#include <CLI/CLI.hpp>

#include "tools/common/docs/command_doc.h"

namespace infer::tools {

std::vector<std::string> normalise_args(int argc, char** argv, const std::vector<Alias>& aliases) {
  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto alias =
        std::find_if(aliases.begin(), aliases.end(), [&](const Alias& a) { return a.from == arg; });
    args.emplace_back(alias == aliases.end() ? arg : alias->to);
  }
  return args;
}

int parse_args(CLI::App& app, std::vector<std::string> args) {
  if (const int code = print_docs(app, args); code >= 0) return code;
  std::reverse(args.begin(), args.end());  // CLI11 takes them last first
  try {
    app.parse(std::move(args));
  } catch (const CLI::Success& help) {
    return app.exit(help, std::cout, std::cerr);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "%s: error: %s (see --help)\n", app.get_name().c_str(), e.what());
    return kExitUsage;
  }
  return -1;
}

int report_error(std::string_view program, const Error& error) {
  std::fprintf(stderr, "%.*s: error: %s\n", static_cast<int>(program.size()), program.data(),
               error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitUsage : kExitFailure;
}

int run_program(std::string_view program, int (*run)(int argc, char** argv), int argc,
                char** argv) {
  try {
    const int code = run(argc, argv);
    if (std::fflush(stdout) == 0) return code;
    return report_error(program, {ErrorCode::kIo, "cannot write to the standard output"});
  } catch (const std::exception& e) {
    return report_error(program, {ErrorCode::kIo, e.what()});
  }
}

}  // namespace infer::tools
