#include <csignal>
#include <cstdio>
#include <stop_token>
#include <string>

#include "tools/common/args.h"
#include "tools/common/interrupt.h"
#include "tools/perplexity/choice_modes.h"
#include "tools/perplexity/options.h"
#include "tools/perplexity/task_files.h"
#include "tools/perplexity/text_modes.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "perplexity";

struct Commands {
  CLI::App* pack = nullptr;
  CLI::App* compare = nullptr;
  std::string in, out;  ///< of pack
  std::string a, b;     ///< of compare
  bool json = false;
};

void add_commands(CLI::App& app, Commands* c) {
  c->pack = app.add_subcommand("pack",
                               "tasks from one form to another: llama.cpp's binary file, or "
                               "JSON lines where OUT ends in .json or .jsonl");
  c->pack->add_option("in", c->in, "binary file, .json, .jsonl, .csv or a folder of .csv")
      ->required();
  c->pack->add_option("out", c->out, "file to write")->required();
  c->compare = app.add_subcommand("compare",
                                  "two --jsonl files of the same tasks: what moved, and "
                                  "whether that is more than chance");
  c->compare->add_option("a", c->a, "results of one run")->required();
  c->compare->add_option("b", c->b, "results of another")->required();
  c->compare->add_flag("--json", c->json, "as one JSON object");
}

Result<void> run(const PerplexityArgs& args, const std::stop_token& stop) {
  INFER_TRY(check_args(args));
  switch (args.mode()) {
    case Mode::kPerplexity:
    case Mode::kSaveBase:
      return run_perplexity(args, stop);
    case Mode::kDivergence:
      return run_divergence(args, stop);
    default:
      return run_tasks(args, stop);
  }
}

int main_with(int argc, char** argv) {
  CLI::App app(
      "What a model makes of a text or of questions: perplexity, KL divergence from another "
      "model, multiple choice. Results go to stdout, everything else to stderr.",
      kProgram);
  PerplexityArgs args;
  Commands commands;
  add_perplexity_options(app, &args);
  add_commands(app, &commands);
  if (const int code = parse_args(app, normalise_args(argc, argv, perplexity_aliases())); code >= 0)
    return code;
  std::signal(SIGXFSZ, SIG_IGN);  // a limit of file sizes is an error of a write, not the end
  std::stop_source stop;
  const InterruptWatcher interrupts([&stop] { stop.request_stop(); });
  Result<void> done = commands.pack->parsed() ? pack_tasks(commands.in, commands.out)
                      : commands.compare->parsed()
                          ? compare_files(commands.a, commands.b, commands.json)
                          : run(args, stop.get_token());
  if (done.ok()) return kExitOk;
  if (done.error().code == ErrorCode::kCancelled) return kExitInterrupted;
  return report_error(kProgram, done.error());
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  try {
    const int code = infer::tools::main_with(argc, argv);
    if (std::fflush(stdout) == 0) return code;
    return infer::tools::report_error(
        infer::tools::kProgram, {infer::ErrorCode::kIo, "cannot write to the standard output"});
  } catch (const std::exception& e) {
    return infer::tools::report_error(infer::tools::kProgram, {infer::ErrorCode::kIo, e.what()});
  }
}
