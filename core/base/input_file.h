#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/base/result.h"

namespace infer {

/// A regular file open for reading.
class InputFile {
 public:
  /// Errors: kNotFound, kIo (also for what is no regular file).
  static Result<InputFile> open(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  int64_t size() const { return size_; }  ///< bytes, when it was opened
  int fd() const { return fd_; }
  /// Fills `out` from byte `offset` on. Errors: kIo, also when the file ends before.
  Result<void> read_at(int64_t offset, std::span<std::byte> out) const;
  /// All of its bytes. Errors: kIo; kUnsupported above `max_bytes`.
  Result<std::string> read_all(int64_t max_bytes) const;

 private:
  InputFile(std::string path, int fd, int64_t size);
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace infer
