#include "tools/perplexity/task_files.h"

#include <algorithm>
#include <filesystem>
#include <regex>
#include <utility>

#include "core/base/error.h"
#include "core/base/output_file.h"
#include "tools/common/text_file.h"

namespace infer::tools {
namespace {

namespace fs = std::filesystem;

/// ".csv" of "anatomy_test.csv.gz".
std::string form_of(const fs::path& path) {
  return (path.extension() == ".gz" ? path.stem() : path).extension().string();
}

/// "high_school_physics" of MMLU's "high_school_physics_test.csv".
std::string subject_of(const fs::path& path) {
  std::string name = path.filename().string();
  name.resize(std::min(name.size(), name.find('.')));
  for (const std::string_view ending : {"_test", "_dev", "_val"}) {
    if (name.ends_with(ending)) name.resize(name.size() - ending.size());
  }
  return name;
}

Result<std::vector<eval::ChoiceTask>> read_csv(const fs::path& path) {
  INFER_ASSIGN(const std::string text, read_text_file(path.string()));
  return eval::parse_csv_tasks(text, subject_of(path), path.string());
}

Result<std::vector<eval::ChoiceTask>> read_folder(const std::string& path) {
  std::vector<fs::path> files;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(path, ec)) {
    if (form_of(entry.path()) == ".csv") files.push_back(entry.path());
  }
  if (files.empty()) return make_error(ErrorCode::kNotFound, "{}: has no .csv files", path);
  std::ranges::sort(files);
  std::vector<eval::ChoiceTask> all;
  for (const fs::path& file : files) {
    INFER_ASSIGN(auto tasks, read_csv(file));
    std::ranges::move(tasks, std::back_inserter(all));
  }
  return all;
}

Result<std::vector<eval::ChoiceTask>> read_any(const std::string& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return read_folder(path);
  const std::string form = form_of(path);
  if (form == ".csv") return read_csv(path);
  INFER_ASSIGN(const std::string text, read_text_file(path));
  if (form == ".json" || form == ".jsonl") return eval::parse_json_tasks(text, path);
  return eval::parse_binary_tasks(text, path);
}

}  // namespace

Result<std::vector<eval::ChoiceTask>> read_tasks(const std::string& path) {
  INFER_ASSIGN(auto tasks, read_any(path));
  INFER_TRY(eval::check_tasks(tasks, path));
  return tasks;
}

Result<void> pack_tasks(const std::string& in, const std::string& out) {
  INFER_ASSIGN(const auto tasks, read_tasks(in));
  std::error_code ec;
  if (fs::equivalent(in, out, ec))
    return make_error(ErrorCode::kInvalidArgument, "{}: is the input", out);
  const std::string form = fs::path(out).extension().string();
  auto bytes = form == ".json" || form == ".jsonl" ? eval::write_json_tasks(tasks)
                                                   : eval::write_binary_tasks(tasks);
  if (!bytes.ok()) return make_error(bytes.error().code, "{}: {}", out, bytes.error().message);
  INFER_ASSIGN(OutputFile file, OutputFile::create(out));
  INFER_TRY(file.write(std::string_view(*bytes)));
  return file.finish();
}

Result<std::vector<int64_t>> keep_subset(std::span<const int64_t> selected,
                                         std::span<const eval::ChoiceTask> tasks,
                                         const std::string& subset) {
  std::vector<int64_t> kept(selected.begin(), selected.end());
  if (subset.empty()) return kept;
  try {
    const std::regex pattern(subset);
    std::erase_if(kept, [&](int64_t i) {
      return !std::regex_search(tasks[static_cast<size_t>(i)].subject, pattern);
    });
  } catch (const std::regex_error& e) {
    return make_error(ErrorCode::kInvalidArgument, "--subset '{}': {}", subset, e.what());
  }
  if (kept.empty())
    return make_error(ErrorCode::kInvalidArgument, "--subset '{}': matches no task's subject",
                      subset);
  return kept;
}

}  // namespace infer::tools
