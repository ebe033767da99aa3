#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace infer {

/// A file that gets its name only when it is complete: finish() puts it in the place of what stood
/// there before. Destroyed without it, or killed, nothing is left and the old file is as it was.
/// On file systems that know no files without a name (O_TMPFILE) it is "<path>.<pid>-<i>.tmp" until
/// then; what killed processes left of those is removed when the same file is written again.
/// A symbolic link stays, the file behind it is replaced and keeps its permissions.
/// Errors: kIo naming the file, among them a path that is a folder or a device.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  /// Appends.
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> write(std::string_view text);
  /// Threads: any number at once, each byte by one of them.
  Result<void> write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Reserves `n_bytes` from the beginning (the file has that size then), so that a full disk shows
  /// now. File systems that cannot reserve still set the size.
  Result<void> reserve(int64_t n_bytes);
  Result<void> finish();

  const std::string& path() const { return path_; }

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}
  Result<void> open();
  Result<void> open_named(const std::string& target);
  bool open_nameless(const std::string& target);
  Result<std::string> link_nameless();
  Error failed(std::string_view what) const;

  std::string path_;       // as the user wrote it, for messages
  std::string target_;     // behind links
  std::string temporary_;  // empty: there is no name yet
  int fd_ = -1;
};

}  // namespace infer
