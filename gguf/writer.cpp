#include "gguf/writer.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::gguf {
namespace {

/// Whose temporary file this is: the process of "<base>.<pid>-<i>.tmp", 0 for other names.
pid_t owner_of(std::string_view file, std::string_view base) {
  if (!file.starts_with(base) || !file.ends_with(".tmp")) return 0;
  file.remove_prefix(base.size());
  const char* end = file.data() + file.size();
  pid_t pid = 0;
  if (!file.starts_with('.')) return 0;
  const auto [dash, error] = std::from_chars(file.data() + 1, end, pid);
  if (error != std::errc() || dash == end || *dash != '-') return 0;
  int i = 0;
  const auto [dot, error_i] = std::from_chars(dash + 1, end, i);
  return error_i == std::errc() && std::string_view(dot, end) == ".tmp" ? pid : 0;
}

/// A process of that number is gone, and nobody (another container's process of the same number)
/// holds the file's lock.
void remove_if_stale(const std::string& path, pid_t pid) {
  if (pid <= 0 || ::kill(pid, 0) == 0 || errno != ESRCH) return;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return;
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
  ::close(fd);
}

void remove_stale(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string base = slash == std::string::npos ? path : path.substr(slash + 1);
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own
  while (const dirent* entry = ::readdir(dir)) {
    if (const pid_t pid = owner_of(entry->d_name, base); pid > 0)
      remove_if_stale(slash == std::string::npos ? entry->d_name : folder + entry->d_name, pid);
  }
  ::closedir(dir);
}

}  // namespace

Result<std::unique_ptr<Writer>> Writer::create(const std::string& path) {
  std::unique_ptr<Writer> writer(new Writer(path));
  INFER_TRY(writer->open_temporary());
  return writer;
}

Writer::~Writer() {
  if (state_ != State::kDone) remove_temporary();
}

void Writer::remove_temporary() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Error Writer::io_error(std::string_view what) {
  const int code = errno;
  state_ = State::kFailed;
  remove_temporary();
  return make_error(ErrorCode::kIo, "{}: {}: {}", name(), what, std::strerror(code));
}

Result<void> Writer::open_temporary() {
  struct stat there {};
  if (::stat(name().c_str(), &there) == 0 && !S_ISREG(there.st_mode))  // never replace a device
    return make_error(ErrorCode::kIo, "{}: is no regular file", name());
  remove_stale(name());
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    std::string temporary = fmt::format("{}.{}-{}.tmp", name(), ::getpid(), i);
    fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      (void)::flock(fd_, LOCK_EX | LOCK_NB);  // where locks exist: see remove_stale
      temporary_ = std::move(temporary);
      return {};
    }
    if (errno != EEXIST) break;
  }
  return io_error("cannot create");
}

Result<void> Writer::begin() {
  if (state_ != State::kHeader) return invalid("begin() is called twice");
  INFER_ASSIGN(const std::vector<std::byte> header, encode());
  state_ = State::kData;
  return write_out(header);
}

Result<void> Writer::write(std::span<const std::byte> bytes) {
  if (state_ != State::kData) return invalid("tensor data comes before begin() or after an error");
  while (!bytes.empty()) {
    if (current_ == tensors().size())
      return invalid(fmt::format("{} bytes more than the tensors have", bytes.size()));
    const Tensor& t = tensors()[current_];
    const int64_t n =
        std::min<int64_t>(t.n_bytes - current_bytes_, static_cast<int64_t>(bytes.size()));
    INFER_TRY(write_out(bytes.first(static_cast<size_t>(n))));
    bytes = bytes.subspan(static_cast<size_t>(n));
    current_bytes_ += n;
    if (current_bytes_ < t.n_bytes) break;
    INFER_TRY(write_padding(t.n_bytes));
    ++current_;
    current_bytes_ = 0;
  }
  return {};
}

Result<void> Writer::begin_in_place() {
  INFER_TRY(begin());
  state_ = State::kInPlace;
  data_begin_ = n_written_;
  written_ = std::vector<std::atomic<int64_t>>(tensors().size());
  int64_t end = data_begin_;
  if (!tensors().empty()) {
    const Tensor& last = tensors().back();
    const auto data = checked_add(last.offset, align_up(last.n_bytes, alignment()));
    const auto all = data ? checked_add(data_begin_, *data) : std::nullopt;
    if (!all) return invalid("the file would have more than 2^63 bytes");
    end = *all;
  }
  n_written_ = end;
  // The size first: a file system without fallocate (or an old NFS) still gets its padding.
  if (::ftruncate(fd_, end) != 0) return io_error("cannot make room");
  while (end > 0 && ::fallocate(fd_, 0, 0, end) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) break;
    return io_error(fmt::format("cannot make room for {} bytes", end));
  }
  return {};
}

Result<void> Writer::write_at(size_t index, int64_t offset, std::span<const std::byte> bytes) {
  if (state_ != State::kInPlace) return invalid("write_at() comes before begin_in_place()");
  if (index >= tensors().size()) return invalid(fmt::format("no tensor {}", index));
  const Tensor& t = tensors()[index];
  const auto size = static_cast<int64_t>(bytes.size());
  if (offset < 0 || offset > t.n_bytes || size > t.n_bytes - offset) {
    return invalid(fmt::format("tensor '{}' has {} bytes, not {} at {}", printable(t.name),
                               t.n_bytes, size, offset));
  }
  int64_t to = data_begin_ + t.offset + offset;
  constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite), to);
    if (n < 0) {
      if (errno == EINTR) continue;
      const int code = errno;  // other threads may be writing: the destructor cleans up
      return make_error(ErrorCode::kIo, "{}: cannot write: {}", name(), std::strerror(code));
    }
    to += n;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  written_[index].fetch_add(size, std::memory_order_relaxed);
  return {};
}

Result<void> Writer::check_complete() const {
  for (size_t i = 0; i < tensors().size(); ++i) {
    const Tensor& t = tensors()[i];
    const int64_t n = state_ == State::kInPlace ? written_[i].load(std::memory_order_relaxed)
                      : i < current_            ? t.n_bytes
                      : i == current_           ? current_bytes_
                                                : 0;
    if (n != t.n_bytes) {
      return invalid(
          fmt::format("tensor '{}' has {} of its {} bytes", printable(t.name), n, t.n_bytes));
    }
  }
  return {};
}

Result<void> Writer::finish() {
  if (state_ != State::kData && state_ != State::kInPlace)
    return invalid("finish() comes before begin() or after an error");
  INFER_TRY(check_complete());
  if (::close(std::exchange(fd_, -1)) != 0) return io_error("cannot close");
  if (std::rename(temporary_.c_str(), name().c_str()) != 0)
    return io_error("cannot give the file its name");
  state_ = State::kDone;
  return {};
}

Result<void> Writer::write_out(std::span<const std::byte> bytes) {
  constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (n < 0) {
      if (errno == EINTR) continue;
      return io_error("cannot write");
    }
    n_written_ += n;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> Writer::write_padding(int64_t n_bytes) {
  const int64_t n = align_up(n_bytes, alignment()) - n_bytes;
  const std::vector<std::byte> zeros(static_cast<size_t>(n));
  return write_out(zeros);
}

}  // namespace infer::gguf
