#include "gguf/mmap.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

namespace infer::gguf {
namespace {

constexpr std::align_val_t kAlign{64};

Error system_error(const std::string& path, std::string_view what) {
  const int code = errno;
  return make_error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}: {}", path,
                    what, std::strerror(code));
}

}  // namespace

InputFile::InputFile(std::string path, int fd, int64_t size)
    : path_(std::move(path)), fd_(fd), size_(size) {}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<InputFile> InputFile::open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait here for a writer; on regular files it changes
  // nothing.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error(path, "cannot open");
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    Error error = system_error(path, "cannot stat");
    ::close(fd);
    return error;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return make_error(ErrorCode::kIo, "{}: {}", path,
                      S_ISDIR(info.st_mode) ? "is a folder, not a file" : "is not a regular file");
  }
  return InputFile(path, fd, static_cast<int64_t>(info.st_size));
}

Result<void> InputFile::read_at(int64_t offset, std::span<std::byte> out) const {
  constexpr size_t kMaxRead = size_t{1} << 30;  // Linux reads at most 2 GiB a call
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), std::min(out.size(), kMaxRead), offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error(path_, "cannot read");
    }
    if (n == 0) return make_error(ErrorCode::kIo, "{}: became shorter while it was read", path_);
    offset += n;
    out = out.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<MappedFile> MappedFile::map(const InputFile& file, const std::string& path) {
  MappedFile out;
  if (file.size() == 0)
    return out;  // an empty mapping is refused by the kernel; no bytes are what a parser gets
  void* p = ::mmap(nullptr, static_cast<size_t>(file.size()), PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (p == MAP_FAILED) return system_error(path, "cannot map");
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

void AlignedDelete::operator()(std::byte* p) const { ::operator delete(p, kAlign); }

Result<AlignedBytes> allocate_aligned(int64_t n_bytes, const std::string& path) {
  void* p = ::operator new(static_cast<size_t>(n_bytes), kAlign, std::nothrow);
  if (p == nullptr)
    return make_error(ErrorCode::kOutOfMemory, "{}: no memory for its {} bytes", path, n_bytes);
  return AlignedBytes(static_cast<std::byte*>(p));
}

}  // namespace infer::gguf
