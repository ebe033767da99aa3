#include "gguf/writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::gguf {

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
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    std::string temporary = fmt::format("{}.{}-{}.tmp", name(), ::getpid(), i);
    fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
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

Result<void> Writer::finish() {
  if (state_ != State::kData) return invalid("finish() comes before begin() or after an error");
  if (current_ != tensors().size()) {
    return invalid(fmt::format("tensor '{}' has {} of its {} bytes",
                               printable(tensors()[current_].name), current_bytes_,
                               tensors()[current_].n_bytes));
  }
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
