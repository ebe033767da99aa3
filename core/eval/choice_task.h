#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

/// Multiple-choice tasks: a question, answers, and which of them are right.
namespace infer::eval {

struct Answers {
  std::vector<std::string> texts;
  std::vector<int32_t> labels;  ///< [texts.size()] 1: right
  bool operator==(const Answers&) const = default;
};

inline constexpr size_t kMaxAnswers = 100;  ///< of a task, as in llama.cpp

struct ChoiceTask {
  std::string subject;  ///< empty: not known
  std::string question;
  Answers single;    ///< one of them is right; where more are labelled so, each of those
  Answers multiple;  ///< several are; kept, not used
  bool operator==(const ChoiceTask&) const = default;
};

/// Tasks that are as they must be to be scored: a question and 2 to kMaxAnswers answers, none
/// empty, a subject that is a name.
/// Errors: kCorrupt naming the task (from 1) and what is wrong.
Result<void> check_tasks(const std::vector<ChoiceTask>& tasks, const std::string& path);

/// The index of the right answer, the first of several; -1 if no label says 1.
int right_answer(const ChoiceTask& task);
/// Whether label `answer` says 1. Needs: labels; answer < texts.
bool is_right(const ChoiceTask& task, int answer);

/// `n` of all tasks (n <= 0 or n >= all: every one in its order) as llama-perplexity selects them
/// for --multiple-choice-tasks and --winogrande-tasks, in the order in which it takes them.
std::vector<int64_t> select_tasks(int64_t n_all, int64_t n);
/// The same for --hellaswag-tasks, which always takes them in a random order.
/// It depends on the standard library's uniform_int_distribution: libstdc++'s, like the peer's.
std::vector<int64_t> select_hellaswag_tasks(int64_t n_all, int64_t n);

// task_binary.cpp: llama.cpp's file: u32 n, u32 offset [n] of each task from the file's beginning,
// then the tasks: question, single, multiple; strings and lists with their u32 length before them,
// i32 labels behind the texts. Source: llama.cpp, tools/perplexity (multiple_choice_score).
/// Errors: kCorrupt naming the file, the task and the number.
Result<std::vector<ChoiceTask>> parse_binary_tasks(std::string_view bytes, const std::string& path);
/// Errors: kUnsupported for what has no place in 32 bits.
Result<std::string> write_binary_tasks(const std::vector<ChoiceTask>& tasks);

// task_text.cpp
/// JSON lines or a JSON list of {"question", "choices", "answer", "subject"} as MMLU has it, or of
/// {"question", "single_correct": {"answers", "labels"}, "multiple_correct": ...} as llama.cpp's
/// converter does. Errors: kCorrupt naming the file, the task and the key.
Result<std::vector<ChoiceTask>> parse_json_tasks(std::string_view text, const std::string& path);
/// Rows of question, answers, right one as a letter or a number, as MMLU is distributed; a first
/// row that begins with "question" names columns. The subject is the caller's.
Result<std::vector<ChoiceTask>> parse_csv_tasks(std::string_view text, const std::string& subject,
                                                const std::string& path);
/// One JSON object a line, from which parse_json_tasks gives the same tasks. Errors: kUnsupported
/// for text that is not UTF-8, naming the task.
Result<std::string> write_json_tasks(const std::vector<ChoiceTask>& tasks);

// task_lines.cpp
/// HellaSwag's text form: context, label, four endings, a line each.
Result<std::vector<ChoiceTask>> parse_hellaswag(std::string_view text, const std::string& path);

/// A sentence with a gap, and two words for it.
struct Winogrande {
  std::string before, after;  ///< the gap
  std::string words[2];
  int answer = 0;  ///< 0 or 1
};
/// Rows of index, sentence with "_", two words, 1 or 2.
Result<std::vector<Winogrande>> parse_winogrande(std::string_view text, const std::string& path);

}  // namespace infer::eval
