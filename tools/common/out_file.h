#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/output_file.h"
#include "core/base/result.h"

namespace infer::tools {

/// A file of results, which appears under its name only with finish() (see OutputFile). "-" is
/// standard output; what is no regular file (a device, a pipe) is written as it stands.
/// Errors: kIo naming the file.
class OutFile {
 public:
  static Result<std::unique_ptr<OutFile>> create(const std::string& path);
  OutFile(const OutFile&) = delete;
  OutFile& operator=(const OutFile&) = delete;
  ~OutFile();

  /// On its way to the file when this returns.
  Result<void> write(std::string_view text);
  Result<void> finish();

 private:
  OutFile() = default;
  Error failure() const;

  std::string name_;  ///< for messages
  std::optional<OutputFile> file_;
  std::FILE* stream_ = nullptr;  ///< instead of a file
};

}  // namespace infer::tools
