#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/eval/choice_report.h"

namespace infer::tools {

/// The file of --resume: grows by a line a task, so that a killed run loses what was being computed
/// only. Errors: kIo naming the file; kInvalidArgument for the file of another run.
class RunLog {
 public:
  /// Takes what is there; a line that was cut off is taken away.
  static Result<RunLog> open(const std::string& path, const std::string& header);
  RunLog(RunLog&& other) noexcept;
  RunLog& operator=(RunLog&&) = delete;
  ~RunLog();

  /// What earlier runs have.
  const std::vector<eval::TaskResult>& before() const { return before_; }
  Result<void> append(const std::string& line);

 private:
  explicit RunLog(std::string path) : path_(std::move(path)) {}
  Error failed() const;
  Result<bool> has_begun(const std::string& header) const;

  std::string path_;
  std::vector<eval::TaskResult> before_;
  int fd_ = -1;
};

}  // namespace infer::tools
