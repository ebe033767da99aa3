#include "tools/common/text_file.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "core/base/error.h"

namespace infer::tools {

Result<std::string> read_text_file(const std::string& path) {
  constexpr size_t kMaxBytes = size_t{1} << 31;
  constexpr unsigned kPiece = 1u << 18;
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec))
    return make_error(ErrorCode::kIo, "{}: is a folder", path);
  errno = 0;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), &gzclose);
  if (file == nullptr) {
    const int code = errno;
    return make_error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}", path,
                      code == 0 ? "cannot be read" : std::strerror(code));
  }
  std::string text;
  while (true) {
    const size_t at = text.size();
    if (at > kMaxBytes)
      return make_error(ErrorCode::kUnsupported, "{}: is larger than {} bytes", path, kMaxBytes);
    text.resize(at + kPiece);
    const int n = gzread(file.get(), text.data() + at, kPiece);
    text.resize(at + static_cast<size_t>(n > 0 ? n : 0));
    if (n <= 0) break;
  }
  int code = Z_OK;
  const char* what = gzerror(file.get(), &code);
  if (code == Z_ERRNO) return make_error(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  if (code != Z_OK && code != Z_STREAM_END)
    return make_error(ErrorCode::kCorrupt, "{}: {}", path, what);
  return text;
}

}  // namespace infer::tools
