#include <csignal>
#include <cstdio>
#include <stop_token>
#include <string>

#include <CLI/CLI.hpp>

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
                               "write multiple-choice tasks in another form: llama.cpp's binary "
                               "file, or JSON lines where OUT ends in .json or .jsonl");
  c->pack
      ->add_option("IN", c->in, "llama.cpp's binary file, .jsonl, .json, .csv or a folder of .csv")
      ->required();
  c->pack->add_option("OUT", c->out, "the file to write; the binary form has no subjects")
      ->required();
  c->compare = app.add_subcommand("compare",
                                  "two runs of the same tasks, files of --jsonl or --resume: what "
                                  "moved, and whether it is more than chance");
  c->compare->add_option("A", c->a, "results of one run")->required();
  c->compare->add_option("B", c->b, "results of the other")->required();
  c->compare->add_flag("--json", c->json, "print one JSON object");
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
      "Measures a model: perplexity of a text, KL divergence from another model, accuracy on "
      "multiple-choice tasks.\n"
      "Results go to stdout, everything else to stderr.",
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
  return infer::tools::run_program(infer::tools::kProgram, infer::tools::main_with, argc, argv);
}
