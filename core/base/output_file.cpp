#include "core/base/output_file.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

namespace infer {
namespace {

constexpr int kTries = 100;
constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux writes at most 2 GiB a call

std::string temporary_name(const std::string& path, int i) {
  return fmt::format("{}.{}-{}.tmp", path, ::getpid(), i);
}

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

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

void remove_stale(const std::string& path) {
  const std::string folder = folder_of(path);
  const std::string base = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own
  while (const dirent* entry = ::readdir(dir)) {
    if (const pid_t pid = owner_of(entry->d_name, base); pid > 0)
      remove_if_stale(folder + entry->d_name, pid);
  }
  ::closedir(dir);
}

/// The name by which the system calls an open file without a name.
std::string handle_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

Result<OutputFile> OutputFile::create(const std::string& path) {
  OutputFile file(path);
  INFER_TRY(file.open());
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Error OutputFile::failed(std::string_view what) const {
  return make_error(ErrorCode::kIo, "{}: {}: {}", path_, what, std::strerror(errno));
}

Result<void> OutputFile::open() {
  struct stat there {};
  const bool exists = ::stat(path_.c_str(), &there) == 0;
  if (exists && !S_ISREG(there.st_mode))  // never replace a device
    return make_error(ErrorCode::kIo, "{}: is no regular file", path_);
  std::error_code ec;
  target_ = path_;
  if (exists && std::filesystem::is_symlink(path_, ec)) {
    if (auto real = std::filesystem::canonical(path_, ec); !ec) target_ = real.string();
  }
  remove_stale(target_);
  if (!open_nameless(target_)) INFER_TRY(open_named(target_));
  if (exists) (void)::fchmod(fd_, there.st_mode & 07777);
  return {};
}

/// False where the file system, or a system without /proc, cannot do it: nothing is open then.
bool OutputFile::open_nameless(const std::string& target) {
  fd_ = ::open(folder_of(target).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (fd_ < 0) return false;
  struct stat by_path {
  }, by_fd{};
  if (::fstat(fd_, &by_fd) == 0 && ::stat(handle_path(fd_).c_str(), &by_path) == 0 &&
      by_path.st_ino == by_fd.st_ino && by_path.st_dev == by_fd.st_dev)
    return true;
  ::close(std::exchange(fd_, -1));
  return false;
}

Result<void> OutputFile::open_named(const std::string& target) {
  for (int i = 0; i < kTries; ++i) {
    std::string name = temporary_name(target, i);
    fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      (void)::flock(fd_, LOCK_EX | LOCK_NB);  // where locks exist: see remove_stale
      temporary_ = std::move(name);
      return {};
    }
    if (errno != EEXIST) break;
  }
  return failed("cannot create");
}

Result<void> OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (n < 0) {
      if (errno == EINTR) continue;
      return failed("cannot write");
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> OutputFile::write(std::string_view text) {
  return write(std::as_bytes(std::span(text)));
}

Result<void> OutputFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite), offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return failed("cannot write");
    }
    offset += n;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> OutputFile::reserve(int64_t n_bytes) {
  // The size first: a file system without fallocate (or an old NFS) still gets its padding.
  if (::ftruncate(fd_, n_bytes) != 0) return failed("cannot make room");
  while (n_bytes > 0 && ::fallocate(fd_, 0, 0, n_bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) break;
    return failed(fmt::format("cannot make room for {} bytes", n_bytes));
  }
  return {};
}

/// Gives the file a name: the last one, which it is returned as, if that is free.
Result<std::string> OutputFile::link_nameless() {
  const std::string handle = handle_path(fd_);
  const auto link_as = [&](const std::string& name) {
    return ::linkat(AT_FDCWD, handle.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
  };
  if (link_as(target_)) return target_;
  for (int i = 0; i < kTries && errno == EEXIST; ++i) {
    if (std::string name = temporary_name(target_, i); link_as(name)) return name;
  }
  return failed("cannot give the file its name");
}

Result<void> OutputFile::finish() {
  if (temporary_.empty()) {
    INFER_ASSIGN(temporary_, link_nameless());
  }
  if (::close(std::exchange(fd_, -1)) != 0) return failed("cannot close");
  if (temporary_ != target_ && std::rename(temporary_.c_str(), target_.c_str()) != 0)
    return failed("cannot give the file its name");
  temporary_.clear();
  return {};
}

}  // namespace infer
