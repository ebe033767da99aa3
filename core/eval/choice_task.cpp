#include "core/eval/choice_task.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "core/base/error.h"

namespace infer::eval {

Result<void> check_tasks(const std::vector<ChoiceTask>& tasks, const std::string& path) {
  // What recurses over a subject (std::regex) does so a character at a time.
  constexpr size_t kMaxSubject = 1000;
  if (tasks.empty()) return make_error(ErrorCode::kCorrupt, "{}: has no tasks", path);
  for (size_t i = 0; i < tasks.size(); ++i) {
    const ChoiceTask& t = tasks[i];
    const auto bad = [&](std::string_view what) {
      return make_error(ErrorCode::kCorrupt, "{}: task {}: {}", path, i + 1, what);
    };
    if (t.question.empty()) return bad("the question is empty");
    if (t.subject.size() > kMaxSubject)
      return bad(fmt::format("a subject of {} bytes, above {}", t.subject.size(), kMaxSubject));
    if (t.single.texts.size() < 2) return bad("has fewer than two answers");
    for (const Answers* answers : {&t.single, &t.multiple}) {
      if (answers->texts.size() > kMaxAnswers)
        return bad(fmt::format("{} answers, above {}", answers->texts.size(), kMaxAnswers));
      for (const int32_t label : answers->labels) {
        if (label != 0 && label != 1) return bad(fmt::format("label {} is neither 0 nor 1", label));
      }
    }
    for (size_t a = 0; a < t.single.texts.size(); ++a) {
      if (t.single.texts[a].empty()) return bad(fmt::format("answer {} is empty", a + 1));
    }
    if (right_answer(t) < 0) return bad("no answer is labelled right");
  }
  return {};
}

bool is_right(const ChoiceTask& task, int answer) {
  return answer >= 0 && task.single.labels[static_cast<size_t>(answer)] == 1;
}

int right_answer(const ChoiceTask& task) {
  const auto it = std::ranges::find(task.single.labels, 1);
  return it == task.single.labels.end() ? -1 : static_cast<int>(it - task.single.labels.begin());
}

std::vector<int64_t> select_tasks(int64_t n_all, int64_t n) {
  std::vector<int64_t> left(static_cast<size_t>(n_all));
  std::iota(left.begin(), left.end(), int64_t{0});
  if (n <= 0 || n >= n_all) return left;
  // The peer's arithmetic is in f32, and so decides which tasks these are.
  std::mt19937 rng(1);
  const float scale = 1.0f / (1.0f + static_cast<float>(std::mt19937::max()));
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < n; ++i) {
    const float at = scale * static_cast<float>(rng()) * static_cast<float>(left.size());
    const size_t j = std::min(static_cast<size_t>(at), left.size() - 1);
    chosen.push_back(left[j]);
    left[j] = left.back();
    left.pop_back();
  }
  return chosen;
}

std::vector<int64_t> select_hellaswag_tasks(int64_t n_all, int64_t n) {
  std::vector<int64_t> left(static_cast<size_t>(n_all));
  std::iota(left.begin(), left.end(), int64_t{0});
  if (n <= 0) n = n_all;
  std::mt19937 rng(1);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < std::min(n, n_all); ++i) {
    std::uniform_int_distribution<size_t> dist(0, left.size() - 1);
    const auto it = left.begin() + static_cast<int64_t>(dist(rng));
    chosen.push_back(*it);
    left.erase(it);
  }
  return chosen;
}

}  // namespace infer::eval
