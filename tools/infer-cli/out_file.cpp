#include "tools/infer-cli/out_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"

namespace infer::tools {
namespace fs = std::filesystem;

Error OutFile::failure() const {
  return make_error(ErrorCode::kIo, "{}: {}", name_, std::strerror(errno));
}

Result<std::unique_ptr<OutFile>> OutFile::create(const std::string& path) {
  std::unique_ptr<OutFile> out(new OutFile);
  out->name_ = path;
  if (path == "-") {
    out->name_ = "standard output";
    out->file_ = stdout;
    return out;
  }
  std::error_code ec;
  const fs::file_status status = fs::status(path, ec);
  if (fs::is_directory(status)) {
    errno = EISDIR;
    return out->failure();
  }
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    out->file_ = std::fopen(path.c_str(), "wb");
    if (out->file_ == nullptr) return out->failure();
    return out;
  }
  // Behind a link it is the file that is replaced, not the link.
  const fs::path real = fs::is_symlink(path, ec) ? fs::weakly_canonical(path, ec) : fs::path(path);
  out->path_ = ec ? path : real.string();
  std::string temporary = out->path_ + ".tmp-" + std::to_string(getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return out->failure();
  out->temporary_ = std::move(temporary);
  if (fs::exists(status)) (void)fchmod(fd, static_cast<mode_t>(status.permissions()));
  out->file_ = fdopen(fd, "wb");
  if (out->file_ == nullptr) {
    const Error error = out->failure();
    close(fd);
    return error;
  }
  return out;
}

OutFile::~OutFile() {
  if (file_ != nullptr && file_ != stdout) std::fclose(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Result<void> OutFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0)
    return failure();
  return {};
}

Result<void> OutFile::finish() {
  if (file_ == stdout) return {};
  const int closed = std::fclose(file_);
  file_ = nullptr;
  if (closed != 0) return failure();
  if (temporary_.empty()) return {};
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return failure();
  temporary_.clear();
  return {};
}

}  // namespace infer::tools
