#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/eval/choice_report.h"
#include "core/eval/choice_task.h"

namespace {

void check(const infer::Error& error) {
  if (error.message.empty()) __builtin_trap();
}

/// What was read comes back from what is written of it.
void check_tasks(const infer::Result<std::vector<infer::eval::ChoiceTask>>& tasks) {
  using namespace infer::eval;
  if (!tasks.ok()) return check(tasks.error());
  if (const auto checked = check_tasks(*tasks, "fuzz"); !checked.ok())
    return check(checked.error());
  const auto bytes = write_binary_tasks(*tasks);
  if (!bytes.ok()) return check(bytes.error());
  auto back = parse_binary_tasks(*bytes, "fuzz");
  if (!back.ok() || back->size() != tasks->size()) __builtin_trap();
  for (size_t i = 0; i < back->size(); ++i) {
    (*back)[i].subject = (*tasks)[i].subject;  // has no place in the binary form
    if ((*back)[i] != (*tasks)[i]) __builtin_trap();
  }
}

}  // namespace

/// The first byte says as which form of tasks, or as a line of results, the rest is read.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace infer::eval;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {
    case 0:
      check_tasks(parse_binary_tasks(text, "fuzz"));
      break;
    case 1:
      check_tasks(parse_json_tasks(text, "fuzz"));
      break;
    case 2:
      check_tasks(parse_csv_tasks(text, "subject", "fuzz"));
      break;
    case 3:
      check_tasks(parse_hellaswag(text, "fuzz"));
      break;
    case 4:
      if (const auto tasks = parse_winogrande(text, "fuzz"); !tasks.ok()) check(tasks.error());
      break;
    default:
      if (const auto line = parse_result_line(text); line.ok()) {
        if (!parse_result_line(result_line(*line)).ok()) __builtin_trap();
      }
  }
  return 0;
}
