#include "tools/perplexity/choice_modes.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/crc32c.h"
#include "core/base/error.h"
#include "core/base/output_file.h"
#include "core/eval/choice_report.h"
#include "core/eval/choice_score.h"
#include "core/model/model.h"
#include "gguf/content_hash.h"
#include "tools/common/text_file.h"
#include "tools/perplexity/progress.h"
#include "tools/perplexity/run_file.h"
#include "tools/perplexity/task_files.h"

namespace infer::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProgram = "perplexity";

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

/// What is to be scored, whatever the form of its tasks.
struct Job {
  std::string name;                     ///< "multiple-choice", ...
  std::string path;                     ///< of the tasks
  std::vector<eval::ChoiceTask> tasks;  ///< multiple choice and HellaSwag
  std::vector<eval::Winogrande> gaps;
  std::map<std::string, std::vector<eval::ChoiceTask>> shots;  ///< by subject
  std::vector<int64_t> selected;                               ///< in the order of the run
};

Result<void> read_shots(const PerplexityArgs& args, Job* job) {
  if (args.shots == 0) return {};
  INFER_ASSIGN(const auto dev, read_tasks(args.dev));
  for (const eval::ChoiceTask& task : dev) {
    auto& shots = job->shots[task.subject];
    if (std::ssize(shots) < args.shots) shots.push_back(task);
  }
  for (const int64_t i : job->selected) {
    const std::string& subject = job->tasks[static_cast<size_t>(i)].subject;
    const auto it = job->shots.find(subject);
    const int64_t n = it == job->shots.end() ? 0 : std::ssize(it->second);
    if (n < args.shots)
      return make_error(ErrorCode::kInvalidArgument, "--shots {}: {} has {} tasks of subject '{}'",
                        args.shots, args.dev, n, subject);
  }
  return {};
}

Result<Job> read_job(const PerplexityArgs& args) {
  Job job;
  job.path = args.task_file.empty() ? args.text : args.task_file;
  int64_t n_all = 0;
  if (args.winogrande) {
    job.name = "winogrande";
    INFER_ASSIGN(const std::string text, read_text_file(job.path));
    INFER_ASSIGN(job.gaps, eval::parse_winogrande(text, job.path));
    n_all = std::ssize(job.gaps);
  } else if (args.hellaswag) {
    job.name = "hellaswag";
    INFER_ASSIGN(const std::string text, read_text_file(job.path));
    INFER_ASSIGN(job.tasks, eval::parse_hellaswag(text, job.path));
    n_all = std::ssize(job.tasks);
  } else {
    job.name = "multiple-choice";
    INFER_ASSIGN(job.tasks, read_tasks(job.path));
    n_all = std::ssize(job.tasks);
  }
  job.selected = args.hellaswag ? eval::select_hellaswag_tasks(n_all, args.n_task())
                                : eval::select_tasks(n_all, args.n_task());
  if (!args.subset.empty()) {
    if (args.winogrande || args.hellaswag)
      return make_error(ErrorCode::kInvalidArgument, "--subset: {} tasks have no subjects",
                        job.name);
    INFER_ASSIGN(job.selected, keep_subset(job.selected, job.tasks, args.subset));
  }
  INFER_TRY(read_shots(args, &job));
  return job;
}

/// A number that changes with any task of the run.
uint32_t job_hash(const Job& job) {
  uint32_t crc = 0;
  const auto add = [&](const std::string& text) {
    const std::string sized = fmt::format("{}:{}", text.size(), text);
    crc = crc32c(crc, std::as_bytes(std::span(sized)));
  };
  const auto add_task = [&](const eval::ChoiceTask& t) {
    add(t.subject);
    add(t.question);
    for (const std::string& s : t.single.texts) add(s);
    for (const int32_t label : t.single.labels) add(std::to_string(label));
  };
  for (const int64_t i : job.selected) {
    add(std::to_string(i));
    if (!job.gaps.empty()) {
      const eval::Winogrande& t = job.gaps[static_cast<size_t>(i)];
      for (const std::string& s : {t.before, t.words[0], t.words[1], t.after}) add(s);
      add(std::to_string(t.answer));
      continue;
    }
    add_task(job.tasks[static_cast<size_t>(i)]);
  }
  for (const auto& [subject, shots] : job.shots) {
    for (const eval::ChoiceTask& t : shots) add_task(t);
  }
  return crc;
}

Result<Json> adapters_json(const ModelOptions& options) {
  std::vector<std::pair<std::string, float>> all;
  for (const std::string& path : options.lora) all.emplace_back(path, 1.0f);
  all.insert(all.end(), options.lora_scaled.begin(), options.lora_scaled.end());
  Json list = Json::array();
  for (const auto& [path, scale] : all) {
    INFER_ASSIGN(const auto file, gguf::Reader::open(path));
    list.push_back({{"name", file_name(path)},
                    {"hash", fmt::format("{:016x}", gguf::content_hash(*file))},
                    {"scale", scale}});
  }
  return list;
}

/// Of those that compute: "NVIDIA GeForce RTX 4090, sm_89, 23.6 GiB".
std::vector<std::string> gpus_of(const LoadedModel& loaded) {
  std::vector<std::string> gpus;
  for (const auto& backend : loaded.backends) {
    const runtime::DeviceInfo info = backend->describe();
    const auto& stages = loaded.engine->stages();
    if (info.is_gpu && std::ranges::find(stages, info.name, &StageInfo::device) != stages.end())
      gpus.push_back(info.description);
  }
  return gpus;
}

/// What makes two runs the same run, everything that numbers depend on: the first line of its file.
Result<std::string> run_header(const PerplexityArgs& args, const Job& job,
                               const LoadedModel& loaded) {
  const Engine& engine = *loaded.engine;
  const gguf::Reader& file = engine.model().file();
  const std::string cache = args.model.engine.precise ? "f32" : "f16";
  const auto type_or_default = [&](const std::string& type) { return type.empty() ? cache : type; };
  Json run{
      {"kind", job.name},
      {"model", file_name(file.path())},
      {"model_hash", fmt::format("{:016x}", gguf::content_hash(file))},
      {"tasks", job.selected.size()},
      {"tasks_crc32c", fmt::format("{:08x}", job_hash(job))},
      {"style", args.style},
      {"shots", args.shots},
      {"n_ctx", engine.n_ctx()},
      {"precise", args.model.engine.precise},
      {"kv_types", type_or_default(args.model.type_k) + "/" + type_or_default(args.model.type_v)},
      {"isa", isa_names(engine)}};
  if (const auto gpus = gpus_of(loaded); !gpus.empty()) {
    run["gpus"] = gpus;
    // Their kernels depend on how many rows a step has.
    run["n_batch"] = args.model.engine.n_batch;
    run["n_parallel"] = args.n_parallel;
  }
  if (args.model.engine.unfused) run["unfused"] = true;
  INFER_ASSIGN(Json adapters, adapters_json(args.model));
  if (!adapters.empty()) run["lora"] = std::move(adapters);
  return Json{{"run", std::move(run)}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Scores what an earlier run did not, and keeps everything in its order.
class TaskRun {
 public:
  TaskRun(const PerplexityArgs& args, const Job& job, Engine& engine, std::string header)
      : args_(args), job_(job), engine_(engine), header_(std::move(header)) {}

  Result<void> run(const std::stop_token& stop);
  const eval::ChoiceSummary& summary() const { return summary_; }
  const std::vector<eval::TaskResult>& results() const { return results_; }
  const std::string& header() const { return header_; }
  const std::string& kind() const { return job_.name; }

 private:
  Result<void> take_earlier();
  Result<eval::Alternatives> texts_of(int64_t i) const;
  eval::TaskResult result_of(int64_t i, const eval::Scored& scored) const;
  Result<void> take(eval::TaskResult result, bool log);

  const PerplexityArgs& args_;
  const Job& job_;
  Engine& engine_;
  const std::string header_;
  std::optional<RunLog> log_;
  std::vector<eval::TaskResult> results_;
  eval::ChoiceSummary summary_;
};

Result<eval::Alternatives> TaskRun::texts_of(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  const text::Tokenizer& tokenizer = engine_.tokenizer();
  const auto named = [&](Result<eval::Alternatives> texts) -> Result<eval::Alternatives> {
    if (texts.ok()) return texts;
    return make_error(texts.error().code, "{}: task {}: {}", job_.path, i + 1,
                      texts.error().message);
  };
  if (args_.winogrande) return named(eval::gap_texts(job_.gaps[at], tokenizer));
  const eval::ChoiceTask& task = job_.tasks[at];
  if (args_.style != "letters") return named(eval::answer_texts(task, tokenizer));
  std::vector<const eval::ChoiceTask*> shots;
  if (const auto it = job_.shots.find(task.subject); it != job_.shots.end()) {
    for (const eval::ChoiceTask& shot : it->second) shots.push_back(&shot);
  }
  return named(eval::letter_texts(task, shots, tokenizer));
}

eval::TaskResult TaskRun::result_of(int64_t i, const eval::Scored& scored) const {
  eval::TaskResult r;
  r.task = i;
  r.scores = scored.scores;
  r.skipped = scored.skipped;
  if (!scored.scores.empty()) r.choice = scored.choice();
  if (args_.winogrande) {
    r.answer = job_.gaps[static_cast<size_t>(i)].answer;
    // Of equals llama-perplexity takes the second here, elsewhere the first.
    if (r.scores.size() == 2 && r.scores[0] == r.scores[1]) r.choice = 1;
  } else {
    const eval::ChoiceTask& task = job_.tasks[static_cast<size_t>(i)];
    r.subject = task.subject;
    r.answer = eval::right_answer(task);
    for (int a = r.answer + 1; a < std::ssize(task.single.texts); ++a) {
      if (eval::is_right(task, a)) r.also_right.push_back(a);
    }
  }
  return r;
}

Result<void> TaskRun::take(eval::TaskResult result, bool log) {
  if (log && log_) INFER_TRY(log_->append(eval::result_line(result)));
  summary_.add(result);
  results_.push_back(std::move(result));
  return {};
}

Result<void> TaskRun::take_earlier() {
  if (args_.resume.empty()) return {};
  INFER_ASSIGN(RunLog log, RunLog::open(args_.resume, header_));
  log_.emplace(std::move(log));
  for (const eval::TaskResult& r : log_->before()) {
    const size_t at = results_.size();
    if (at >= job_.selected.size() || job_.selected[at] != r.task)
      return make_error(ErrorCode::kCorrupt, "--resume {}: task {} is not the {}. of this run",
                        args_.resume, r.task, at + 1);
    INFER_TRY(take(r, /*log=*/false));
  }
  if (!results_.empty())
    fmt::print(stderr, "{}: {}: {} of {} tasks are done\n", kProgram, args_.resume, results_.size(),
               job_.selected.size());
  return {};
}

Result<void> TaskRun::run(const std::stop_token& stop) {
  INFER_TRY(take_earlier());
  const int64_t n_before = std::ssize(results_), n_all = std::ssize(job_.selected);
  Progress progress("task", n_all);
  progress.skip(n_before);
  const eval::ScoreOptions options{
      .max_seqs = args_.n_parallel, .max_tok = args_.model.engine.kv_tok, .stop = stop};
  const auto selected = [&](int64_t k) { return job_.selected[static_cast<size_t>(n_before + k)]; };
  int64_t n_tok = 0;
  const auto done = [&](int64_t k, const eval::Scored& scored) -> Result<void> {
    if (!scored.finite())
      return make_error(ErrorCode::kNumeric, "{}: task {}: the model gives no numbers", job_.path,
                        selected(k) + 1);
    INFER_TRY(take(result_of(selected(k), scored), /*log=*/true));
    n_tok += scored.n_tok;
    const eval::Proportion p = summary_.accuracy();
    progress.show(n_before + k + 1, n_tok,
                  fmt::format("{:.2f} +/- {:.2f} %", 100.0 * p.p, 100.0 * p.error));
    return {};
  };
  Result<void> scored = eval::score_tasks(
      engine_, n_all - n_before, options, [&](int64_t k) { return texts_of(selected(k)); }, done);
  progress.clear();
  const double seconds = progress.seconds();
  fmt::print(stderr, "{}: {} tasks, {} tokens in {:.1f} s, {:.2f} tasks/s, {:.0f} tok/s\n",
             kProgram, std::ssize(results_) - n_before, n_tok, seconds,
             static_cast<double>(std::ssize(results_) - n_before) / seconds,
             static_cast<double>(n_tok) / seconds);
  if (!scored.ok() && scored.error().code == ErrorCode::kCancelled && log_)
    fmt::print(stderr, "{}: interrupted after {} of {} tasks; the same command goes on there\n",
               kProgram, results_.size(), n_all);
  return scored;
}

/// What is written at the end, opened at the beginning: a run of hours does not end at a wrong
/// path.
struct Outputs {
  std::optional<OutputFile> jsonl, svg;
  std::optional<eval::RunFile> other;  ///< of --svg-with
};

Result<Outputs> open_outputs(const PerplexityArgs& args) {
  Outputs out;
  const auto open = [](const std::string& path, std::optional<OutputFile>* file) -> Result<void> {
    if (path.empty()) return {};
    INFER_ASSIGN(OutputFile created, OutputFile::create(path));
    file->emplace(std::move(created));
    return {};
  };
  INFER_TRY(open(args.jsonl, &out.jsonl));
  INFER_TRY(open(args.svg, &out.svg));
  if (!args.svg_other.empty()) {
    INFER_ASSIGN(out.other, eval::read_run(args.svg_other));
  }
  return out;
}

Result<void> write_all(OutputFile* file, std::string_view text) {
  INFER_TRY(file->write(text));
  return file->finish();
}

Result<void> write_chart(const PerplexityArgs& args, const std::string& model,
                         const eval::ChoiceSummary& summary, Outputs* out) {
  std::vector<eval::ChartRun> runs{{model, &summary}};
  eval::ChoiceSummary other;
  if (out->other) {
    for (const eval::TaskResult& r : out->other->results) other.add(r);
    const Json header = Json::parse(out->other->header, nullptr, false);
    std::string name = file_name(args.svg_other);
    if (const auto run = header.find("run"); run != header.end() && run->is_object())
      if (const auto it = run->find("model"); it != run->end() && it->is_string())
        name = it->get<std::string>();
    runs.push_back({name, &other});
  }
  return write_all(&*out->svg, eval::accuracy_chart(runs));
}

Result<void> report(const PerplexityArgs& args, const TaskRun& run, const std::string& model,
                    Outputs* out) {
  const eval::ChoiceSummary& summary = run.summary();
  if (summary.n_skipped() > 0) {
    const eval::TaskResult& first = summary.first_skipped();
    fmt::print(stderr, "{}: warning: {} tasks were skipped, the first: task {}{}: {}\n", kProgram,
               summary.n_skipped(), first.task + 1,
               first.subject.empty() ? "" : " (" + first.subject + ")", first.skipped);
  }
  if (summary.n_done() == 0)
    return make_error(ErrorCode::kInvalidArgument, "all {} tasks were skipped: a larger -c may do",
                      summary.n_skipped());
  if (args.json) {
    fmt::print("{}\n", eval::summary_json(summary, run.header()));
  } else {
    fmt::print("{}", eval::summary_text(summary, run.kind()));
  }
  // Behind the result, which a full disk does not take away.
  if (out->jsonl) {
    std::string lines = run.header() + '\n';
    for (const eval::TaskResult& r : run.results()) lines += eval::result_line(r) + '\n';
    INFER_TRY(write_all(&*out->jsonl, lines));
  }
  if (out->svg) INFER_TRY(write_chart(args, model, summary, out));
  return {};
}

}  // namespace

Result<void> run_tasks(const PerplexityArgs& args, const std::stop_token& stop) {
  INFER_ASSIGN(const Job job, read_job(args));
  INFER_ASSIGN(Outputs out, open_outputs(args));
  PerplexityArgs with_room = args;
  EngineOptions& engine = with_room.model.engine;
  engine.max_seqs = args.n_parallel;
  // Two batches in work, so that a step is full while the next tasks come in.
  engine.kv_tok = std::max(2 * engine.n_batch, engine.n_ctx) + engine.n_batch;
  INFER_ASSIGN(const LoadedModel loaded, load_model(kProgram, with_room.model));
  fmt::print(stderr, "{}\n", loaded.engine->summary());
  fmt::print(stderr, "{}: {}: {} tasks of {}\n", kProgram, job.name, job.selected.size(), job.path);
  INFER_ASSIGN(std::string header, run_header(args, job, loaded));
  TaskRun run(with_room, job, *loaded.engine, std::move(header));
  INFER_TRY(run.run(stop));
  return report(with_room, run, file_name(loaded.engine->model().file().path()), &out);
}

Result<void> compare_files(const std::string& path_a, const std::string& path_b, bool json) {
  INFER_ASSIGN(const eval::RunFile a, eval::read_run(path_a));
  INFER_ASSIGN(const eval::RunFile b, eval::read_run(path_b));
  INFER_ASSIGN(const eval::Comparison c, eval::compare_runs(a, b));
  if (json) {
    fmt::print("{}\n", eval::comparison_json(c));
  } else {
    fmt::print("{}", eval::comparison_text(c, path_a, path_b));
  }
  return {};
}

}  // namespace infer::tools
