#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/result.h"

namespace infer::gguf {

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

 private:
  InputFile(std::string path, int fd, int64_t size);
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

/// A whole file mapped read-only. Its bytes must not change while it is mapped; a file cut short by
/// another program ends this one with a bus error, as with every mapped file.
class MappedFile {
 public:
  MappedFile() = default;
  static Result<MappedFile> map(const InputFile& file, const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  bool is_mapped() const { return data_ != nullptr; }
  /// Gives back the whole pages inside a part of the mapping; they are read again when touched.
  void release(std::span<const std::byte> part) const;
  /// The same with the pages at both ends.
  void release_around(std::span<const std::byte> part) const;

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Memory that starts at a multiple of 64.
struct AlignedDelete {
  void operator()(std::byte* p) const;
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;
/// Errors: kOutOfMemory.
Result<AlignedBytes> allocate_aligned(int64_t n_bytes, const std::string& path);

}  // namespace infer::gguf
