#include "tools/infer-cli/text_input.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include "core/base/error.h"

namespace infer::tools {
namespace {

Result<std::string> read_stream(std::FILE* file, const std::string& name, size_t most_bytes) {
  std::string text;
  char chunk[65536];
  while (const size_t n = std::fread(chunk, 1, sizeof(chunk), file)) {
    text.append(chunk, n);
    if (text.size() > most_bytes)
      return make_error(ErrorCode::kInvalidArgument, "{}: longer than {} bytes", name, most_bytes);
  }
  if (std::ferror(file) != 0)
    return make_error(ErrorCode::kIo, "{}: {}", name, std::strerror(errno));
  return text;
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t most_bytes) {
  if (path == "-") return read_stream(stdin, "standard input", most_bytes);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) return make_error(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  return read_stream(file.get(), path, most_bytes);
}

Result<LineReader::Kind> LineReader::next(std::string* line) {
  line->clear();
  bool any = false;
  bool too_long = false;
  for (;;) {
    errno = 0;
    const int c = std::getc(file_);
    if (c == EOF) {
      if (std::ferror(file_) != 0)
        return make_error(ErrorCode::kIo, "{}: {}", name_, std::strerror(errno));
      if (!any) return Kind::kEnd;
      break;
    }
    any = true;
    if (c == '\n') break;
    if (line->size() == most_bytes_) {
      too_long = true;
      line->clear();
    }
    if (!too_long) line->push_back(static_cast<char>(c));
  }
  if (too_long) {
    line->clear();
    return Kind::kTooLong;
  }
  if (!line->empty() && line->back() == '\r') line->pop_back();
  return Kind::kLine;
}

}  // namespace infer::tools
