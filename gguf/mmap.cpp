#include "gguf/mmap.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "core/base/error.h"

namespace infer::gguf {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr std::align_val_t kAlign{kHugePage};

}  // namespace

Result<MappedFile> MappedFile::map(const InputFile& file, const std::string& path,
                                   bool huge_pages) {
  MappedFile out;
  if (file.size() == 0)
    return out;  // an empty mapping is refused by the kernel; no bytes are what a parser gets
  void* p = ::mmap(nullptr, static_cast<size_t>(file.size()), PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (p == MAP_FAILED)
    return make_error(ErrorCode::kIo, "{}: cannot map: {}", path, std::strerror(errno));
  if (huge_pages) advise_huge(static_cast<std::byte*>(p), file.size());
  out.data_ = static_cast<std::byte*>(p);
  out.size_ = static_cast<size_t>(file.size());
  return out;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (data_ == nullptr || part.data() < data_ || part.data() + part.size() > data_ + size_) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t from = (static_cast<size_t>(part.data() - data_) + page - 1) / page * page;
  const size_t to = static_cast<size_t>(part.data() + part.size() - data_) / page * page;
  if (to > from) ::madvise(data_ + from, to - from, MADV_DONTNEED);
}

void MappedFile::release_around(std::span<const std::byte> part) const {
  if (data_ == nullptr || part.data() < data_ || part.data() + part.size() > data_ + size_) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t from = static_cast<size_t>(part.data() - data_) / page * page;
  const auto to = static_cast<size_t>(part.data() + part.size() - data_);
  if (to > from) ::madvise(data_ + from, to - from, MADV_DONTNEED);
}

void advise_huge([[maybe_unused]] std::byte* data, [[maybe_unused]] int64_t n_bytes) {
#if defined(MADV_HUGEPAGE)
  if (n_bytes >= static_cast<int64_t>(kHugePage))
    (void)::madvise(data, static_cast<size_t>(n_bytes), MADV_HUGEPAGE);
#endif
}

void AlignedDelete::operator()(std::byte* p) const { ::operator delete(p, kAlign); }

Result<AlignedBytes> allocate_aligned(int64_t n_bytes, const std::string& path) {
  void* p = ::operator new(static_cast<size_t>(n_bytes), kAlign, std::nothrow);
  if (p == nullptr)
    return make_error(ErrorCode::kOutOfMemory, "{}: no memory for its {} bytes", path, n_bytes);
  return AlignedBytes(static_cast<std::byte*>(p));
}

}  // namespace infer::gguf
