#pragma once

#include <cstdio>
#include <string>

#include "core/base/result.h"

/// Texts that people give to infer-cli on the command line and in files.
namespace infer::tools {

/// All of a file; "-" is standard input. Errors: kIo naming the file, kInvalidArgument above
/// `most_bytes`.
Result<std::string> read_file(const std::string& path, size_t most_bytes = size_t{1} << 30);

/// Lines of a stream, one at a time, of any length up to a limit.
class LineReader {
 public:
  LineReader(std::FILE* file, std::string name, size_t most_bytes)
      : file_(file), name_(std::move(name)), most_bytes_(most_bytes) {}

  enum class Kind { kLine, kTooLong, kEnd };
  /// The next line without its end (\n or \r\n). kTooLong: the line was skipped and `line` is
  /// empty. Errors: kIo naming the file.
  Result<Kind> next(std::string* line);

 private:
  std::FILE* file_;
  std::string name_;
  size_t most_bytes_;
};

}  // namespace infer::tools
