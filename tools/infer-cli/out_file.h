#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace infer::tools {

/// A file of results. It appears under its name only with finish(): until then there is a temporary
/// file beside it, which the destructor removes. "-" is standard output; what is no regular file (a
/// device, a pipe) is written as it stands. Errors: kIo naming the file.
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
  std::string path_, temporary_;
  std::FILE* file_ = nullptr;
};

}  // namespace infer::tools
