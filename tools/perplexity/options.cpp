#include "tools/perplexity/options.h"

#include "core/base/error.h"

namespace infer::tools {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;

void add_text_options(CLI::App& app, PerplexityArgs* a) {
  app.add_option("-f,--file", a->text, "text to read, or with a task mode its tasks (also .gz)");
  app.add_option("--chunks", a->chunks, "windows of the text to judge; default: all")
      ->check(CLI::Range(int64_t{-1}, kMany));
  app.add_option("--ppl-stride,--stride", a->stride,
                 "overlapping windows, so many tokens apart; 0: side by side, second halves judged")
      ->check(CLI::Range(int64_t{0}, kMany))
      ->capture_default_str();
  app.add_flag("--kl-divergence", a->kl_divergence,
               "divergence from a base model: a file with --kl-divergence-base, or --against");
  app.add_option("--kl-divergence-base,--save-all-logits", a->kl_base,
                 "the base model's log-probabilities: read with --kl-divergence, else written")
      ->type_name("FILE");
  app.add_option("--against", a->against, "divergence from this model, without a file")
      ->type_name("GGUF");
}

void add_task_options(CLI::App& app, PerplexityArgs* a) {
  app.add_flag("--multiple-choice", a->multiple_choice, "tasks with one right answer, as MMLU");
  app.add_flag("--hellaswag", a->hellaswag, "HellaSwag tasks, six lines each");
  app.add_flag("--winogrande", a->winogrande, "Winogrande tasks, a CSV row each");
  app.add_option("--binary-file", a->task_file,
                 "tasks: llama.cpp's binary file, JSON lines, JSON, CSV or a folder of CSV files "
                 "(also -bf)")
      ->type_name("FILE");
  app.add_option("--multiple-choice-tasks,--hellaswag-tasks,--winogrande-tasks,--tasks", a->tasks,
                 "take so many, those that llama.cpp takes; 0: all; default: all, HellaSwag 400")
      ->check(CLI::Range(int64_t{0}, kMany));
  app.add_option("--subset", a->subset, "only tasks whose subject matches")->type_name("REGEX");
  app.add_option("--style", a->style,
                 "what is scored: the answers' texts, or letters (A, B, ...) behind the whole task")
      ->check(CLI::IsMember({"answers", "letters"}))
      ->capture_default_str();
  app.add_option("--shots", a->shots, "solved tasks before each, with --style letters")
      ->check(CLI::Range(0, 5))
      ->capture_default_str();
  app.add_option("--dev", a->dev, "where --shots come from: tasks of the same subjects")
      ->type_name("FILE");
  app.add_option("--parallel", a->n_parallel, "texts computed at the same time (also -np)")
      ->check(CLI::Range(4, 4096))
      ->capture_default_str();
}

void add_report_options(CLI::App& app, PerplexityArgs* a) {
  app.add_flag("--json", a->json, "the result as one JSON object on the standard output");
  app.add_option("--jsonl", a->jsonl, "write a line a task: scores, choice, right or not");
  app.add_option("--svg", a->svg, "write a chart of the accuracy of each subject");
  app.add_option("--svg-with", a->svg_other, "another run's --jsonl, to stand beside it")
      ->type_name("FILE")
      ->needs("--svg");
  app.add_option("--resume", a->resume,
                 "keep results here while they come, and go on where an earlier run stopped")
      ->type_name("FILE");
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
  if ((a.style != "letters" || !a.multiple_choice) && (a.shots > 0 || !a.dev.empty()))
    return invalid("--shots and --dev need --multiple-choice --style letters");
  if ((a.shots > 0) != !a.dev.empty()) return invalid("--shots and --dev need each other");
  if (!a.resume.empty() && a.resume == a.jsonl)
    return invalid("--resume and --jsonl are the same file: --resume alone does both");
  return {};
}

}  // namespace infer::tools
