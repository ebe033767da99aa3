#include <array>
#include <string>

#include "core/base/error.h"
#include "core/eval/choice_task.h"

namespace infer::eval {
namespace {

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    lines.push_back(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line);
  }
  return lines;
}

/// Places of the four commas outside of quotes; false if there are fewer.
bool find_commas(std::string_view line, std::array<size_t, 4>* commas) {
  size_t n = 0;
  bool quoted = false;
  for (size_t i = 0; i < line.size() && n < commas->size(); ++i) {
    if (line[i] == '"') quoted = !quoted;
    if (line[i] == ',' && !quoted) (*commas)[n++] = i;
  }
  return n == commas->size();
}

}  // namespace

Result<std::vector<ChoiceTask>> parse_hellaswag(std::string_view text, const std::string& path) {
  constexpr size_t kLines = 6;
  const std::vector<std::string_view> lines = split_lines(text);
  if (lines.empty() || lines.size() % kLines != 0)
    return make_error(ErrorCode::kCorrupt, "{}: {} lines, not six for each task", path,
                      lines.size());
  std::vector<ChoiceTask> tasks;
  for (size_t at = 0; at < lines.size(); at += kLines) {
    const std::string_view label = lines[at + 1];
    if (label.size() != 1 || label[0] < '0' || label[0] > '3')
      return make_error(ErrorCode::kCorrupt, "{}: line {}: label '{}' is not in 0..3", path, at + 2,
                        label);
    ChoiceTask t;
    t.question = lines[at];
    for (size_t i = 0; i < 4; ++i) {
      t.single.texts.emplace_back(lines[at + 2 + i]);
      t.single.labels.push_back(static_cast<size_t>(label[0] - '0') == i ? 1 : 0);
    }
    tasks.push_back(std::move(t));
  }
  return tasks;
}

Result<std::vector<Winogrande>> parse_winogrande(std::string_view text, const std::string& path) {
  std::vector<Winogrande> tasks;
  const std::vector<std::string_view> lines = split_lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = lines[i];
    if (line.empty()) continue;
    const auto corrupt = [&](std::string_view what) {
      return make_error(ErrorCode::kCorrupt, "{}: line {}: {}", path, i + 1, what);
    };
    std::array<size_t, 4> comma{};
    if (!find_commas(line, &comma)) return corrupt("needs index, sentence, two words, 1 or 2");
    const auto field = [&](size_t k) {
      const size_t begin = comma[k] + 1;
      return line.substr(begin, (k == 3 ? line.size() : comma[k + 1]) - begin);
    };
    std::string_view sentence = field(0);
    if (sentence.size() > 1 && sentence.starts_with('"') && sentence.ends_with('"'))
      sentence = sentence.substr(1, sentence.size() - 2);
    const size_t gap = sentence.find('_');
    if (gap == std::string_view::npos) return corrupt("the sentence has no '_'");
    const std::string_view answer = field(3);
    if (answer != "1" && answer != "2") return corrupt("the answer is neither 1 nor 2");
    Winogrande t;
    t.before = sentence.substr(0, gap);
    t.after = sentence.substr(gap + 1);
    t.words[0] = field(1);
    t.words[1] = field(2);
    t.answer = answer == "1" ? 0 : 1;
    tasks.push_back(std::move(t));
  }
  if (tasks.empty()) return make_error(ErrorCode::kCorrupt, "{}: has no tasks", path);
  return tasks;
}

}  // namespace infer::eval
