#include "tools/perplexity/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace infer::tools {

Progress::Progress(std::string_view unit, int64_t n_all)
    : unit_(unit), n_all_(n_all), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - begin_).count();
}

void Progress::show(int64_t done, int64_t n_tok, std::string_view value) {
  if (!terminal_) return;
  const Clock::time_point now = Clock::now();
  if (now - shown_ < std::chrono::milliseconds(100) && done < n_all_) return;
  shown_ = now;
  const double s = std::max(seconds(), 1e-3);
  const auto n = static_cast<double>(std::max<int64_t>(1, done - before_));
  const auto left = static_cast<int64_t>(s / n * static_cast<double>(n_all_ - done));
  const std::string line =
      fmt::format("{} {} of {}: {}, {:.0f} tok/s, {}:{:02}:{:02} left", unit_, done, n_all_, value,
                  static_cast<double>(n_tok) / s, left / 3600, left / 60 % 60, left % 60);
  fmt::print(stderr, "\r{:<{}}", line, width_);
  width_ = line.size();
  std::fflush(stderr);
}

void Progress::clear() {
  if (width_ > 0) fmt::print(stderr, "\r{:{}}\r", "", width_);
  width_ = 0;
  std::fflush(stderr);
}

}  // namespace infer::tools
