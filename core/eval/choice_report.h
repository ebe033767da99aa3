#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/eval/stats.h"

/// Results of multiple-choice tests: lines of a file, sums, and what two runs have to do with each
/// other.
namespace infer::eval {

struct TaskResult {
  int64_t task = 0;  ///< its number in the task file, from 0
  std::string subject;
  std::vector<double> scores;  ///< empty: skipped
  int choice = -1, answer = -1;
  std::string skipped;            ///< why
  std::vector<int> also_right{};  ///< answers besides `answer`; rarely any

  bool correct() const {
    return choice >= 0 && (choice == answer || std::ranges::count(also_right, choice) > 0);
  }
};

/// One JSON object without line end, the same for the same result on every machine.
std::string result_line(const TaskResult& result);
/// Errors: kCorrupt saying what is wrong, without file or line.
Result<TaskResult> parse_result_line(std::string_view line);

/// A run: a first line that says what was run, then one for each task.
struct RunFile {
  std::string header;  ///< the first line as it stands
  std::vector<TaskResult> results;
  int64_t n_bytes = 0;  ///< of whole lines; a killed run may leave part of one behind them
};
/// Errors: kNotFound, kIo, kCorrupt naming file and line.
Result<RunFile> read_run(const std::string& path);

/// Sums of a run.
class ChoiceSummary {
 public:
  struct Subject {
    int64_t n = 0, n_correct = 0;
  };
  void add(const TaskResult& result);

  int64_t n_done() const { return all_.n; }
  int64_t n_skipped() const { return n_skipped_; }
  const TaskResult& first_skipped() const { return first_skipped_; }
  Proportion accuracy() const { return proportion(all_.n_correct, all_.n); }
  /// One in how many answers there are; its error as llama-perplexity has it.
  Proportion chance() const;
  const std::map<std::string, Subject>& subjects() const { return subjects_; }

 private:
  Subject all_;
  int64_t n_answers_ = 0, n_skipped_ = 0;
  TaskResult first_skipped_;
  std::map<std::string, Subject> subjects_;
};

/// Accuracy of each subject with its interval (only where subjects are known), then "Final result:"
/// and "Random chance:" as llama-perplexity spells them; of "winogrande" and "hellaswag" what it
/// ends those with.
std::string summary_text(const ChoiceSummary& summary, std::string_view kind = {});
/// The same as one JSON object.
std::string summary_json(const ChoiceSummary& summary, std::string_view header);

/// Two runs of the same tasks.
struct Comparison {
  int64_t n = 0;                         ///< tasks in both
  int64_t n_both = 0, n_a = 0, n_b = 0;  ///< right in both, in a alone, in b alone
  int64_t n_same_choice = 0;
  double p = 1.0;  ///< McNemar's exact test of n_a against n_b
  struct Subject {
    int64_t n = 0, n_a = 0, n_b = 0;  ///< tasks; right in a alone, in b alone
  };
  std::map<std::string, Subject> subjects;
};
/// Errors: kInvalidArgument for runs without a task in common, or whose right answers differ.
Result<Comparison> compare_runs(const RunFile& a, const RunFile& b);
std::string comparison_text(const Comparison& c, std::string_view name_a, std::string_view name_b);
std::string comparison_json(const Comparison& c);

/// A chart of each subject's accuracy with its interval, one bar a run: an SVG file's text.
/// Needs: one or two runs.
struct ChartRun {
  std::string name;
  const ChoiceSummary* summary = nullptr;
};
std::string accuracy_chart(const std::vector<ChartRun>& runs);

}  // namespace infer::eval
