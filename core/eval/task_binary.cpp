#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "core/base/error.h"
#include "core/eval/choice_task.h"

namespace infer::eval {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little endian");

/// Takes one thing after the other off a task; after something wrong everything is empty.
class Cursor {
 public:
  Cursor(std::string_view bytes, size_t at) : bytes_(bytes), at_(at) {}

  uint32_t u32(std::string_view what) {
    uint32_t v = 0;
    if (!problem.empty() || bytes_.size() - at_ < sizeof(v)) {
      fail(fmt::format("{} is cut off at byte {}", what, at_));
      return 0;
    }
    std::memcpy(&v, bytes_.data() + at_, sizeof(v));
    at_ += sizeof(v);
    return v;
  }
  std::string string(std::string_view what) {
    const uint32_t n = u32(what);
    if (problem.empty() && n > bytes_.size() - at_)
      fail(fmt::format("{} of {} bytes goes beyond the end", what, n));
    if (!problem.empty()) return {};
    at_ += n;
    return std::string(bytes_.substr(at_ - n, n));
  }
  Answers answers(std::string_view what) {
    Answers a;
    const uint32_t n = u32(what);
    if (n > kMaxAnswers) fail(fmt::format("{} = {}, above {}", what, n, kMaxAnswers));
    for (uint32_t i = 0; i < n && problem.empty(); ++i) a.texts.push_back(string("an answer"));
    for (uint32_t i = 0; i < n && problem.empty(); ++i)
      a.labels.push_back(static_cast<int32_t>(u32("a label")));
    return a;
  }

  size_t at() const { return at_; }

  std::string problem;

 private:
  void fail(std::string what) {
    if (problem.empty()) problem = std::move(what);
  }
  std::string_view bytes_;
  size_t at_;
};

class Bytes {
 public:
  void u32(size_t v) {
    if (v > std::numeric_limits<uint32_t>::max()) fits = false;
    const auto value = static_cast<uint32_t>(v);
    text.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void string(const std::string& s) {
    u32(s.size());
    text += s;
  }
  void answers(const Answers& a) {
    u32(a.texts.size());
    for (const std::string& s : a.texts) string(s);
    for (const int32_t label : a.labels) u32(static_cast<uint32_t>(label));
  }

  std::string text;
  bool fits = true;
};

}  // namespace

Result<std::vector<ChoiceTask>> parse_binary_tasks(std::string_view bytes,
                                                   const std::string& path) {
  const auto corrupt = [&](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "{}: {}", path, what);
  };
  uint32_t n = 0;
  if (bytes.size() < sizeof(n)) return corrupt("has no number of tasks");
  std::memcpy(&n, bytes.data(), sizeof(n));
  if (n == 0) return corrupt("has no tasks");
  const size_t header = sizeof(n) * (size_t{n} + 1);
  if (header > bytes.size())
    return corrupt(fmt::format("{} bytes cannot hold {} tasks", bytes.size(), n));
  std::vector<ChoiceTask> tasks;
  size_t n_bytes = header;  // of all tasks: they may be anywhere, but not in each other
  for (uint32_t i = 0; i < n; ++i) {
    uint32_t offset = 0;
    std::memcpy(&offset, bytes.data() + sizeof(n) * (size_t{i} + 1), sizeof(offset));
    if (offset < header || offset >= bytes.size())
      return corrupt(
          fmt::format("task {} is at {}, not in {}..{}", i + 1, offset, header, bytes.size()));
    Cursor c(bytes, offset);
    ChoiceTask t;
    t.question = c.string("the question");
    t.single = c.answers("the number of answers");
    t.multiple = c.answers("the number of further answers");
    if (!c.problem.empty()) return corrupt(fmt::format("task {}: {}", i + 1, c.problem));
    n_bytes += c.at() - offset;
    if (n_bytes > bytes.size()) return corrupt(fmt::format("task {} overlaps another", i + 1));
    tasks.push_back(std::move(t));
  }
  return tasks;
}

Result<std::string> write_binary_tasks(const std::vector<ChoiceTask>& tasks) {
  Bytes body, header;
  header.u32(tasks.size());
  const size_t header_bytes = sizeof(uint32_t) * (tasks.size() + 1);
  for (const ChoiceTask& t : tasks) {
    header.u32(header_bytes + body.text.size());
    body.string(t.question);
    body.answers(t.single);
    body.answers(t.multiple);
  }
  if (!header.fits || !body.fits)
    return make_error(ErrorCode::kUnsupported, "{} tasks of {} bytes do not fit 32-bit offsets",
                      tasks.size(), body.text.size());
  return header.text + body.text;
}

}  // namespace infer::eval
