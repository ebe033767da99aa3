#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/input_file.h"
#include "core/base/result.h"

namespace infer::gguf {

/// A whole file mapped read-only. Its bytes must not change while it is mapped; a file cut short by
/// another program ends this one with a bus error, as with every mapped file.
class MappedFile {
 public:
  MappedFile() = default;
  /// With `huge_pages` the system is asked for them: it has them where the file system caches files
  /// in large folios (Linux 6.16 with ext4), and elsewhere reads ahead in megabytes.
  static Result<MappedFile> map(const InputFile& file, const std::string& path,
                                bool huge_pages = true);
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

/// Memory that starts at a huge page's border.
struct AlignedDelete {
  void operator()(std::byte* p) const;
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;
/// Asks the system for huge pages; a refusal costs speed only. Before the first touch.
void advise_huge(std::byte* data, int64_t n_bytes);
/// Errors: kOutOfMemory.
Result<AlignedBytes> allocate_aligned(int64_t n_bytes, const std::string& path);

}  // namespace infer::gguf
