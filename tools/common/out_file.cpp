#include "tools/common/out_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

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
    out->stream_ = stdout;
    return out;
  }
  std::error_code ec;
  const fs::file_status status = fs::status(path, ec);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    out->stream_ = std::fopen(path.c_str(), "wb");  // of a folder: an error that says so
    if (out->stream_ == nullptr) return out->failure();
    return out;
  }
  INFER_ASSIGN(OutputFile file, OutputFile::create(path));
  out->file_.emplace(std::move(file));
  return out;
}

OutFile::~OutFile() {
  if (stream_ != nullptr && stream_ != stdout) std::fclose(stream_);
}

Result<void> OutFile::write(std::string_view text) {
  if (file_) return file_->write(text);
  if (std::fwrite(text.data(), 1, text.size(), stream_) != text.size() || std::fflush(stream_) != 0)
    return failure();
  return {};
}

Result<void> OutFile::finish() {
  if (file_) return file_->finish();
  if (stream_ == stdout) return {};
  if (std::fclose(std::exchange(stream_, nullptr)) != 0) return failure();
  return {};
}

}  // namespace infer::tools
