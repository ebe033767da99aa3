#include "tools/perplexity/run_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace infer::tools {

namespace {

/// "isa \"avx2\" instead of \"sm_86\"" of what two runs' first lines say differently; the lines
/// themselves where one is none.
std::string differences(const std::string& have, const std::string& want) {
  const auto run_of = [](const std::string& header) {
    const auto line = nlohmann::ordered_json::parse(header, nullptr, false);
    return line.is_object() ? line.value("run", nlohmann::ordered_json()) : line;
  };
  const auto a = run_of(have), b = run_of(want);
  std::string text;
  const auto add = [&](const std::string& key, const std::string& x, const std::string& y) {
    text += fmt::format("{}{} {} instead of {}", text.empty() ? "" : ", ", key, x, y);
  };
  const auto shown = [](const nlohmann::ordered_json& run, const std::string& key) {
    constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
    return run.contains(key) ? run[key].dump(-1, ' ', false, kReplace) : "none";
  };
  if (!a.is_object() || !b.is_object()) return fmt::format("{} instead of {}", have, want);
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key) || b[key] != value) add(key, shown(a, key), shown(b, key));
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key)) add(key, shown(a, key), shown(b, key));
  }
  return text.empty() ? fmt::format("{} instead of {}", have, want) : text;
}

}  // namespace

RunLog::RunLog(RunLog&& other) noexcept
    : path_(std::move(other.path_)),
      before_(std::move(other.before_)),
      fd_(std::exchange(other.fd_, -1)) {}

RunLog::~RunLog() {
  if (fd_ >= 0) ::close(fd_);
}

Error RunLog::failed() const {
  return make_error(ErrorCode::kIo, "{}: {}", path_, std::strerror(errno));
}

/// False for an empty file, or one that was stopped in the middle of this very first line.
Result<bool> RunLog::has_begun(const std::string& header) const {
  std::string first(header.size() + 1, '\0');
  const ssize_t n = ::pread(fd_, first.data(), first.size(), 0);
  if (n < 0) return failed();
  return static_cast<size_t>(n) > header.size() ||
         !header.starts_with(std::string_view(first).substr(0, static_cast<size_t>(n)));
}

Result<RunLog> RunLog::open(const std::string& path, const std::string& header) {
  RunLog log(path);
  log.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  if (log.fd_ < 0) return log.failed();
  // Before anything is read: another run may be about to add what would be cut off below.
  if (::flock(log.fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return make_error(ErrorCode::kIo, "--resume {}: another run is writing it", path);
  int64_t n_bytes = 0;
  INFER_ASSIGN(const bool begun, log.has_begun(header));
  if (begun) {
    INFER_ASSIGN(eval::RunFile run, eval::read_run(path));
    if (run.header != header) {
      return make_error(ErrorCode::kInvalidArgument, "--resume {}: is of another run: {}", path,
                        differences(run.header, header));
    }
    log.before_ = std::move(run.results);
    n_bytes = run.n_bytes;
  }
  if (::ftruncate(log.fd_, n_bytes) != 0) return log.failed();
  if (n_bytes == 0) INFER_TRY(log.append(header));
  return log;
}

Result<void> RunLog::append(const std::string& line) {
  const std::string bytes = line + '\n';
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::write(fd_, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed();
    at += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace infer::tools
