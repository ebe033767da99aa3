#include "tools/perplexity/options.h"

#include <filesystem>

#include <CLI/CLI.hpp>

#include "core/base/error.h"

namespace infer::tools {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;

void add_text_options(CLI::App& app, PerplexityArgs* a) {
  app.add_option("-f,--file", a->text, "the text to read, or tasks as with -bf (also .gz)")
      ->type_name("FILE");
  app.add_option("--chunks", a->chunks, "read so many windows of -c tokens; default, and -1: all")
      ->check(CLI::Range(int64_t{-1}, kMany));
  app.add_option("--ppl-stride,--stride", a->stride,
                 "windows begin so many tokens apart, and so many at the end of each are judged; "
                 "0: they lie side by side, and their second halves are")
      ->check(CLI::Range(int64_t{0}, kMany))
      ->capture_default_str();
  app.add_flag("--kl-divergence", a->kl_divergence,
               "divergence from a base model: --kl-divergence-base says which, or --against");
  app.add_option("--kl-divergence-base,--save-all-logits", a->kl_base,
                 "log-probabilities of a base model, llama.cpp's file: with --kl-divergence read "
                 "(text and windows are in it, -f is not needed), else written")
      ->type_name("FILE");
  app.add_option("--against", a->against,
                 "divergence from this model (GGUF), run beside -m; other flags hold for both")
      ->type_name("FILE");
}

void add_task_options(CLI::App& app, PerplexityArgs* a) {
  app.add_flag("--multiple-choice", a->multiple_choice,
               "tasks: questions with answers of which one is right, such as MMLU");
  app.add_flag("--hellaswag", a->hellaswag,
               "tasks: HellaSwag, six lines each (context, label, four endings)");
  app.add_flag("--winogrande", a->winogrande,
               "tasks: Winogrande, a CSV row each (index, sentence with _, two words, 1 or 2)");
  app.add_option("--binary-file", a->task_file,
                 "the tasks; for --multiple-choice llama.cpp's binary file, .jsonl, .json, .csv "
                 "or a folder of .csv (also -bf, .gz)")
      ->type_name("FILE");
  app.add_option("--multiple-choice-tasks,--hellaswag-tasks,--winogrande-tasks,--tasks", a->tasks,
                 "take so many, the same ones as llama.cpp takes; 0: all; default: all, HellaSwag "
                 "400")
      ->check(CLI::Range(int64_t{0}, kMany));
  app.add_option("--subset", a->subset,
                 "of the tasks taken only those in whose subject REGEX is found")
      ->type_name("REGEX");
  app.add_option("--style", a->style,
                 "--multiple-choice: answers scores the text of each behind the question, letters "
                 "shows them all as A, B, ... and scores the letter")
      ->check(CLI::IsMember({"answers", "letters"}))
      ->capture_default_str();
  app.add_option("--shots", a->shots,
                 "solved tasks of the same subject before each; needs --style letters and --dev")
      ->check(CLI::Range(0, 5))
      ->capture_default_str();
  app.add_option("--dev", a->dev, "where the solved tasks of --shots come from, in any form of -bf")
      ->type_name("FILE");
  app.add_option("--parallel", a->n_parallel,
                 "tasks: texts computed at the same time, one an answer and one for what they "
                 "share (also -np)")
      ->check(CLI::Range(4, 4096))
      ->capture_default_str();
}

void add_report_options(CLI::App& app, PerplexityArgs* a) {
  app.add_flag("--json", a->json, "print the result as one JSON object");
  app.add_option("--jsonl", a->jsonl,
                 "write the tasks' results as JSON lines: scores, choice, right or not")
      ->type_name("FILE");
  app.add_option("--svg", a->svg, "write a chart of the accuracy of each subject")
      ->type_name("FILE");
  app.add_option("--svg-with", a->svg_other, "a --jsonl file of another run, to stand beside it")
      ->type_name("FILE")
      ->needs("--svg");
  app.add_option("--resume", a->resume,
                 "write the tasks' results while they come, as --jsonl; what is there already of "
                 "the same run is kept and not computed again")
      ->type_name("FILE");
}

/// Errors: kInvalidArgument for an output that is an input.
Result<void> check_outputs(const PerplexityArgs& a) {
  // What is read is not written.
  const std::string base = a.kl_divergence ? std::string() : a.kl_base;
  for (const std::string& out : {base, a.jsonl, a.svg, a.resume}) {
    for (const std::string& in : {a.model.model, a.text, a.task_file, a.dev, a.svg_other}) {
      std::error_code ec;
      if (!out.empty() && !in.empty() && std::filesystem::equivalent(out, in, ec))
        return make_error(ErrorCode::kInvalidArgument, "{}: is read, and would be written over",
                          out);
    }
  }
  return {};
}

}  // namespace

Mode PerplexityArgs::mode() const {
  if (multiple_choice) return Mode::kMultipleChoice;
  if (hellaswag) return Mode::kHellaswag;
  if (winogrande) return Mode::kWinogrande;
  if (kl_divergence || !against.empty()) return Mode::kDivergence;
  return kl_base.empty() ? Mode::kPerplexity : Mode::kSaveBase;
}

void add_perplexity_options(CLI::App& app, PerplexityArgs* a) {
  a->model.engine.n_ctx = 512;
  a->model.engine.n_batch = 1024;
  add_model_options(app, &a->model);
  app.get_option("--ctx-size")
      ->description(
          "texts: tokens of a window; tasks: the most that one may have, longer ones "
          "are skipped; 0: the model's limit");
  add_text_options(app, a);
  add_task_options(app, a);
  add_report_options(app, a);
}

std::vector<Alias> perplexity_aliases() {
  std::vector<Alias> all = model_aliases();
  all.push_back({"-bf", "--binary-file"});
  all.push_back({"-np", "--parallel"});
  return all;
}

Result<void> check_args(const PerplexityArgs& a) {
  const auto invalid = [](std::string_view what) {
    return make_error(ErrorCode::kInvalidArgument, "{}", what);
  };
  if (a.multiple_choice + a.hellaswag + a.winogrande > 1)
    return invalid("--multiple-choice, --hellaswag and --winogrande exclude each other");
  const bool divergence = a.kl_divergence || !a.against.empty();
  if (a.has_tasks() && (divergence || !a.kl_base.empty() || a.stride > 0 || a.chunks >= 0))
    return invalid(
        "tasks have no windows: --kl-divergence, --against, --chunks and --stride are "
        "for texts");
  if (!a.has_tasks() && (a.tasks >= 0 || !a.subset.empty() || !a.task_file.empty() ||
                         !a.jsonl.empty() || !a.svg.empty() || !a.resume.empty()))
    return invalid(
        "--tasks, --subset, -bf, --jsonl, --svg and --resume need --multiple-choice, "
        "--hellaswag or --winogrande");
  if (a.has_tasks() && a.text.empty() == a.task_file.empty())
    return invalid("where are the tasks? Give one file, with -bf or -f");
  if (divergence && a.kl_base.empty() == a.against.empty())
    return invalid("--kl-divergence needs --kl-divergence-base or --against, one of them");
  const bool from_base = a.kl_divergence && !a.kl_base.empty();
  if (from_base && a.stride > 0)
    return invalid("--stride: the windows are those of the file of --kl-divergence-base");
  if (a.chunks == 0) return invalid("--chunks 0: nothing to do");
  if (!a.has_tasks() && !from_base && a.model.engine.n_ctx == 0)
    return invalid("-c 0: a text is cut into windows, which need a length");
  if (!a.has_tasks() && a.text.empty() && !from_base) return invalid("no text: give one with -f");
  if (a.style == "letters" && !a.multiple_choice)
    return invalid("--style letters needs --multiple-choice");
  if ((a.style != "letters" || !a.multiple_choice) && (a.shots > 0 || !a.dev.empty()))
    return invalid("--shots and --dev need --multiple-choice --style letters");
  if ((a.shots > 0) != !a.dev.empty()) return invalid("--shots and --dev need each other");
  if (!a.resume.empty() && a.resume == a.jsonl)
    return invalid("--resume and --jsonl are the same file: --resume alone does both");
  return check_outputs(a);
}

}  // namespace infer::tools
