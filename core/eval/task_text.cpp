#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/eval/choice_task.h"

namespace infer::eval {
namespace {

using Json = nlohmann::ordered_json;

/// What is wrong with a task; the caller adds where it stands.
using Problem = std::optional<std::string>;

/// "B" or "1" (from 0) of n answers; -1 if it is neither.
int answer_index(std::string_view text, size_t n) {
  int i = -1;
  if (text.size() == 1 && text[0] >= 'A' && text[0] <= 'Z') {
    i = text[0] - 'A';
  } else {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), i);
    if (error != std::errc() || end != text.data() + text.size()) return -1;
  }
  return i >= 0 && static_cast<size_t>(i) < n ? i : -1;
}

Answers one_right(std::vector<std::string> texts, int right) {
  Answers a{std::move(texts), {}};
  a.labels.resize(a.texts.size());
  a.labels[static_cast<size_t>(right)] = 1;
  return a;
}

Problem read_strings(const Json& list, std::string_view key, std::vector<std::string>* out) {
  if (!list.is_array()) return fmt::format("key '{}' is no list", key);
  for (const Json& text : list) {
    if (!text.is_string()) return fmt::format("key '{}' has an entry that is no text", key);
    out->push_back(text.get<std::string>());
  }
  return std::nullopt;
}

Problem read_answers(const Json& object, std::string_view key, Answers* out) {
  if (!object.is_object() || !object.contains("answers") || !object.contains("labels"))
    return fmt::format("key '{}' has no 'answers' and 'labels'", key);
  if (auto problem = read_strings(object["answers"], "answers", &out->texts)) return problem;
  const Json& labels = object["labels"];
  if (!labels.is_array() || labels.size() != out->texts.size())
    return fmt::format("key '{}': not as many labels as answers", key);
  for (const Json& label : labels) {
    const auto value = label.is_number_integer() ? label.get<int64_t>() : -1;
    if (value != 0 && value != 1) return fmt::format("key '{}': a label is neither 0 nor 1", key);
    out->labels.push_back(static_cast<int32_t>(value));
  }
  return std::nullopt;
}

Problem read_choices(const Json& object, Answers* out) {
  std::vector<std::string> texts;
  if (auto problem = read_strings(object["choices"], "choices", &texts)) return problem;
  if (!object.contains("answer")) return "has no key 'answer'";
  const Json& answer = object["answer"];
  // Anything nested stays as it is: to print it takes a stack as deep.
  if (!answer.is_string() && !answer.is_number_integer())
    return "key 'answer' is neither a letter nor a number";
  const std::string text = answer.is_string() ? answer.get<std::string>() : answer.dump();
  const int right = answer_index(text, texts.size());
  if (right < 0) return fmt::format("key 'answer' = {}, of {} choices", text, texts.size());
  *out = one_right(std::move(texts), right);
  return std::nullopt;
}

Problem read_task(const Json& object, ChoiceTask* task) {
  if (!object.is_object()) return "is no JSON object";
  if (!object.contains("question") || !object["question"].is_string())
    return "has no text under the key 'question'";
  task->question = object["question"].get<std::string>();
  if (object.contains("subject")) {
    if (!object["subject"].is_string()) return "key 'subject' is no text";
    task->subject = object["subject"].get<std::string>();
  }
  if (object.contains("multiple_correct")) {
    if (auto problem =
            read_answers(object["multiple_correct"], "multiple_correct", &task->multiple))
      return problem;
  }
  if (object.contains("choices")) return read_choices(object, &task->single);
  if (object.contains("single_correct"))
    return read_answers(object["single_correct"], "single_correct", &task->single);
  return "has neither 'choices' nor 'single_correct'";
}

/// Whether MMLU's own layout says all there is.
bool is_plain(const ChoiceTask& t) {
  return t.multiple.texts.empty() && std::ranges::count(t.single.labels, 1) == 1 &&
         std::ranges::count(t.single.labels, 0) + 1 == std::ssize(t.single.labels);
}

Json answers_json(const Answers& a) { return {{"answers", a.texts}, {"labels", a.labels}}; }

/// Fields of the next row of a CSV file; quotes as in RFC 4180. Empty at the end.
std::vector<std::string> next_row(std::string_view* text) {
  std::vector<std::string> fields;
  if (text->empty()) return fields;
  fields.emplace_back();
  bool quoted = false;
  size_t i = 0;
  for (; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (quoted) {
      if (c != '"') {
        fields.back() += c;
      } else if (i + 1 < text->size() && (*text)[i + 1] == '"') {
        fields.back() += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      break;
    } else if (c != '\r' || i + 1 == text->size() || (*text)[i + 1] != '\n') {
      fields.back() += c;
    }
  }
  text->remove_prefix(std::min(i + 1, text->size()));
  return fields;
}

}  // namespace

Result<std::vector<ChoiceTask>> parse_json_tasks(std::string_view text, const std::string& path) {
  std::vector<ChoiceTask> tasks;
  const auto add = [&](const Json& object) -> Result<void> {
    ChoiceTask task;
    if (const Problem problem = read_task(object, &task))
      return make_error(ErrorCode::kCorrupt, "{}: task {}: {}", path, tasks.size() + 1, *problem);
    tasks.push_back(std::move(task));
    return {};
  };
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '[') {
    const Json all = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!all.is_array()) return make_error(ErrorCode::kCorrupt, "{}: is not JSON", path);
    for (const Json& object : all) INFER_TRY(add(object));
    return tasks;
  }
  for (size_t line = 1; !text.empty(); ++line) {
    const std::string_view row = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(row.size() + 1, text.size()));
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json object = Json::parse(row, nullptr, /*allow_exceptions=*/false);
    if (object.is_discarded())
      return make_error(ErrorCode::kCorrupt, "{}: line {} is not JSON", path, line);
    INFER_TRY(add(object));
  }
  return tasks;
}

Result<std::vector<ChoiceTask>> parse_csv_tasks(std::string_view text, const std::string& subject,
                                                const std::string& path) {
  std::vector<ChoiceTask> tasks;
  for (int64_t row = 1;; ++row) {
    std::vector<std::string> fields = next_row(&text);
    if (fields.empty()) break;
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (row == 1 && fields[0] == "question") continue;
    if (fields.size() < 4)
      return make_error(ErrorCode::kCorrupt,
                        "{}: row {} has {} fields, needs 4: question, answers, "
                        "the right one",
                        path, row, fields.size());
    const std::string right = std::move(fields.back());
    fields.pop_back();
    ChoiceTask task{
        .subject = subject, .question = std::move(fields[0]), .single = {}, .multiple = {}};
    fields.erase(fields.begin());
    const int index = answer_index(right, fields.size());
    if (index < 0)
      return make_error(ErrorCode::kCorrupt, "{}: row {}: right answer '{}' of {}", path, row,
                        right, fields.size());
    task.single = one_right(std::move(fields), index);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

Result<std::string> write_json_tasks(const std::vector<ChoiceTask>& tasks) {
  std::string out;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const ChoiceTask& t = tasks[i];
    Json object;
    if (!t.subject.empty()) object["subject"] = t.subject;
    object["question"] = t.question;
    if (is_plain(t)) {
      object["choices"] = t.single.texts;
      object["answer"] = right_answer(t);
    } else {
      object["single_correct"] = answers_json(t.single);
      object["multiple_correct"] = answers_json(t.multiple);
    }
    try {
      out += object.dump() + '\n';
    } catch (const Json::exception&) {
      return make_error(ErrorCode::kUnsupported, "task {}: is not UTF-8, which JSON needs", i + 1);
    }
  }
  return out;
}

}  // namespace infer::eval
