#include "core/eval/choice_report.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/input_file.h"

namespace infer::eval {
namespace {

using Json = nlohmann::ordered_json;

/// Text of a file may be anything; JSON must be UTF-8.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Six digits behind the point are more than an f32 model means, and the same everywhere.
double rounded(double x) { return std::nearbyint(x * 1e6) / 1e6; }

double percent(double x) { return 100.0 * x; }

std::string interval_text(const Proportion& p) {
  return fmt::format("[{:6.2f}, {:6.2f}]", percent(p.low), percent(p.high));
}

/// Width of the longest subject's name.
template <class Subjects>
size_t name_width(const Subjects& subjects) {
  size_t width = 7;
  for (const auto& [name, subject] : subjects) width = std::max(width, name.size());
  return width;
}

}  // namespace

std::string result_line(const TaskResult& r) {
  Json line{{"task", r.task}};
  if (!r.subject.empty()) line["subject"] = r.subject;
  if (!r.skipped.empty()) {
    line["skipped"] = r.skipped;
    return dump(line);
  }
  Json scores = Json::array();
  for (const double s : r.scores) scores.push_back(rounded(s));
  line["scores"] = std::move(scores);
  line["choice"] = r.choice;
  line["answer"] = r.answer;
  if (!r.also_right.empty()) line["also_right"] = r.also_right;
  line["correct"] = r.correct();
  return dump(line);
}

Result<TaskResult> parse_result_line(std::string_view text) {
  const auto corrupt = [](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "{}", what);
  };
  const Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) return corrupt("is no JSON object");
  const auto number = [&](const char* key, int64_t least, int64_t most, auto* out) {
    const auto it = line.find(key);
    if (it == line.end() || !it->is_number_integer()) return false;
    const auto v = it->get<int64_t>();
    *out = static_cast<std::remove_reference_t<decltype(*out)>>(v);
    return v >= least && v <= most;
  };
  const auto string = [&](const char* key, std::string* out) {
    const auto it = line.find(key);
    if (it != line.end() && it->is_string()) *out = it->get<std::string>();
  };
  TaskResult r;
  if (!number("task", 0, INT64_MAX, &r.task)) return corrupt("key 'task' is no number");
  string("subject", &r.subject);
  string("skipped", &r.skipped);
  if (!r.skipped.empty()) return r;
  const auto scores = line.find("scores");
  if (scores == line.end() || !scores->is_array() || scores->empty())
    return corrupt("key 'scores' is no list");
  for (const Json& s : *scores) {
    if (!s.is_number()) return corrupt("key 'scores' has an entry that is no number");
    r.scores.push_back(s.get<double>());
  }
  const int64_t last = std::ssize(r.scores) - 1;
  if (!number("choice", 0, last, &r.choice)) return corrupt("key 'choice' is none of the answers");
  if (!number("answer", 0, last, &r.answer)) return corrupt("key 'answer' is none of the answers");
  for (const Json& also : line.value("also_right", Json::array())) {
    const auto i = also.is_number_integer() ? also.get<int64_t>() : -1;
    if (i < 0 || i > last) return corrupt("key 'also_right' has none of the answers");
    r.also_right.push_back(static_cast<int>(i));
  }
  return r;
}

Result<RunFile> read_run(const std::string& path) {
  constexpr int64_t kMaxBytes = int64_t{1} << 32;
  INFER_ASSIGN(const InputFile file, InputFile::open(path));
  INFER_ASSIGN(const std::string bytes, file.read_all(kMaxBytes));
  RunFile run;
  std::string_view left = bytes;
  for (int64_t no = 1; !left.empty(); ++no) {
    const size_t end = left.find('\n');
    if (end == std::string_view::npos) break;  // a line that was being written
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(end + 1);
    run.n_bytes = static_cast<int64_t>(bytes.size() - left.size());
    if (no == 1) {
      const Json header = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!header.is_object() || !header.contains("run"))
        return make_error(ErrorCode::kCorrupt, "{}: line 1 has no key 'run': no file of results",
                          path);
      run.header = line;
      continue;
    }
    auto result = parse_result_line(line);
    if (!result.ok())
      return make_error(ErrorCode::kCorrupt, "{}: line {}: {}", path, no, result.error().message);
    run.results.push_back(*std::move(result));
  }
  if (run.header.empty() && !bytes.empty())
    return make_error(ErrorCode::kCorrupt, "{}: has no whole line", path);
  return run;
}

void ChoiceSummary::add(const TaskResult& r) {
  if (!r.skipped.empty()) {
    if (n_skipped_++ == 0) first_skipped_ = r;
    return;
  }
  n_answers_ += std::ssize(r.scores);
  for (Subject* s : {&all_, &subjects_[r.subject]}) {
    ++s->n;
    s->n_correct += r.correct() ? 1 : 0;
  }
}

Proportion ChoiceSummary::chance() const {
  Proportion c;
  const auto n = static_cast<double>(all_.n);
  c.p = n / static_cast<double>(n_answers_);
  c.error = all_.n > 1 ? std::sqrt(c.p * (1.0 - c.p) / (n - 1.0)) : 0.0;
  return c;
}

std::string summary_text(const ChoiceSummary& summary, std::string_view kind) {
  std::string out;
  const auto& subjects = summary.subjects();
  if (subjects.size() > 1 || (subjects.size() == 1 && !subjects.begin()->first.empty())) {
    const size_t width = name_width(subjects);
    out += fmt::format("{:<{}}  tasks  right      %  95 % interval\n", "subject", width);
    for (const auto& [name, s] : subjects) {
      const Proportion p = proportion(s.n_correct, s.n);
      out += fmt::format("{:<{}}  {:5}  {:5}  {:5.2f}  {}\n", name.empty() ? "(none)" : name, width,
                         s.n, s.n_correct, percent(p.p), interval_text(p));
    }
    out += '\n';
  }
  const Proportion all = summary.accuracy(), chance = summary.chance();
  if (kind == "hellaswag")
    out += fmt::format("{}\t{:.8f}%\t[{:.4f}%, {:.4f}%]\n", summary.n_done(), percent(all.p),
                       percent(all.low), percent(all.high));
  out += kind == "winogrande" ? fmt::format("Final Winogrande score({} tasks): ", summary.n_done())
                              : "Final result: ";
  out += fmt::format("{:.4f} +/- {:.4f}\n", percent(all.p), percent(all.error));
  out +=
      fmt::format("Random chance: {:.4f} +/- {:.4f}\n", percent(chance.p), percent(chance.error));
  return out;
}

std::string summary_json(const ChoiceSummary& summary, std::string_view header) {
  const auto share = [](const Proportion& p) {
    return Json{{"value", p.p}, {"error", p.error}, {"low", p.low}, {"high", p.high}};
  };
  Json out = Json::parse(header, nullptr, /*allow_exceptions=*/false);
  out["tasks"] = summary.n_done();
  out["skipped"] = summary.n_skipped();
  out["accuracy"] = share(summary.accuracy());
  out["chance"] = summary.chance().p;
  Json& subjects = out["subjects"] = Json::object();
  for (const auto& [name, s] : summary.subjects()) {
    if (name.empty()) continue;  // tasks whose subject is not known
    Json subject = share(proportion(s.n_correct, s.n));
    subject["tasks"] = s.n;
    subject["right"] = s.n_correct;
    subjects[name] = std::move(subject);
  }
  return dump(out);
}

Result<Comparison> compare_runs(const RunFile& a, const RunFile& b) {
  std::unordered_map<int64_t, const TaskResult*> others;
  for (const TaskResult& r : b.results) {
    if (r.skipped.empty()) others[r.task] = &r;
  }
  Comparison c;
  for (const TaskResult& r : a.results) {
    const auto it = others.find(r.task);
    if (!r.skipped.empty() || it == others.end()) continue;
    const TaskResult& o = *it->second;
    // The binary form of tasks has no subjects.
    const bool same_subject = r.subject.empty() || o.subject.empty() || r.subject == o.subject;
    if (r.answer != o.answer || r.also_right != o.also_right || !same_subject)
      return make_error(ErrorCode::kInvalidArgument,
                        "task {} is not the same in both runs: subject '{}' and '{}', right answer "
                        "{} and {}",
                        r.task, r.subject, o.subject, r.answer, o.answer);
    Comparison::Subject& s = c.subjects[r.subject.empty() ? o.subject : r.subject];
    ++c.n, ++s.n;
    c.n_same_choice += r.choice == o.choice ? 1 : 0;
    if (r.correct() && o.correct()) ++c.n_both;
    if (r.correct() && !o.correct()) ++c.n_a, ++s.n_a;
    if (!r.correct() && o.correct()) ++c.n_b, ++s.n_b;
  }
  if (c.n == 0) return make_error(ErrorCode::kInvalidArgument, "the runs have no task in common");
  c.p = mcnemar_p(c.n_a, c.n_b);
  return c;
}

std::string comparison_text(const Comparison& c, std::string_view name_a, std::string_view name_b) {
  const auto n = static_cast<double>(c.n);
  const auto share = [&](int64_t k) { return percent(static_cast<double>(k) / n); };
  std::string out = fmt::format("A: {}: {:.4f} %\nB: {}: {:.4f} %\n", name_a,
                                share(c.n_both + c.n_a), name_b, share(c.n_both + c.n_b));
  out += fmt::format("{} tasks in both; right in both {}, in A alone {}, in B alone {}\n", c.n,
                     c.n_both, c.n_a, c.n_b);
  out += fmt::format("same choice: {:.2f} %\n", share(c.n_same_choice));
  out +=
      fmt::format("B - A: {:+.4f} points, McNemar's exact p = {:.4g}\n", share(c.n_b - c.n_a), c.p);
  // What moved most comes first.
  std::vector<std::pair<std::string, Comparison::Subject>> moved;
  for (const auto& [name, s] : c.subjects) {
    if (!name.empty() && s.n_a != s.n_b) moved.emplace_back(name, s);
  }
  if (moved.empty()) return out;
  std::ranges::stable_sort(moved, std::greater(),
                           [](const auto& m) { return std::abs(m.second.n_b - m.second.n_a); });
  const size_t width = name_width(c.subjects);
  out += fmt::format("\n{:<{}}  tasks  A alone  B alone  points       p\n", "moved", width);
  for (const auto& [name, s] : moved) {
    const double points = percent(static_cast<double>(s.n_b - s.n_a) / static_cast<double>(s.n));
    out += fmt::format("{:<{}}  {:5}  {:7}  {:7}  {:+6.2f}  {:6.4f}\n", name, width, s.n, s.n_a,
                       s.n_b, points, mcnemar_p(s.n_a, s.n_b));
  }
  return out;
}

std::string comparison_json(const Comparison& c) {
  Json out{{"tasks", c.n},
           {"both", c.n_both},
           {"a_alone", c.n_a},
           {"b_alone", c.n_b},
           {"same_choice", c.n_same_choice},
           {"p", c.p}};
  Json& subjects = out["subjects"] = Json::object();
  for (const auto& [name, s] : c.subjects)
    subjects[name] = {
        {"tasks", s.n}, {"a_alone", s.n_a}, {"b_alone", s.n_b}, {"p", mcnemar_p(s.n_a, s.n_b)}};
  return dump(out);
}

}  // namespace infer::eval
