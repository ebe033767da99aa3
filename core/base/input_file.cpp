#include "core/base/input_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

namespace infer {
namespace {

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

Result<std::string> InputFile::read_all(int64_t max_bytes) const {
  if (size_ > max_bytes)
    return make_error(ErrorCode::kUnsupported, "{}: has {} bytes, more than {}", path_, size_,
                      max_bytes);
  std::string bytes(static_cast<size_t>(size_), '\0');
  INFER_TRY(read_at(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

}  // namespace infer
