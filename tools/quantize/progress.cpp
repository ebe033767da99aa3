#include "tools/quantize/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/base/quant_types.h"
#include "gguf/describe.h"

namespace infer::tools {
namespace {

constexpr int kBarWidth = 30;
constexpr int kLineWidth = 78;

std::string clock_text(double seconds) {
  const int64_t s = std::llround(seconds);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

ProgressView::ProgressView(const quantize::Plan& plan, bool verbose)
    : plan_(plan), verbose_(verbose), bar_(isatty(STDERR_FILENO) != 0) {}

ProgressView::~ProgressView() { finish(); }

double ProgressView::finish() {
  const std::lock_guard lock(mutex_);
  clear();
  return seconds();
}

void ProgressView::attach(quantize::RunOptions* options) {
  if (bar_) options->progress = [this](const quantize::Progress& p) { draw(p); };
  if (verbose_) {
    options->on_tensor = [this](size_t i, const quantize::TensorReport& r) { tensor_line(i, r); };
  }
}

double ProgressView::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void ProgressView::draw(const quantize::Progress& p) {
  const double t = std::max(seconds(), 1e-3);
  const double share =
      p.all_bytes > 0 ? static_cast<double>(p.done_bytes) / static_cast<double>(p.all_bytes) : 1.0;
  const double left = share > 0.0 ? t / share - t : 0.0;
  const std::string bar(static_cast<size_t>(kBarWidth * share), '#');
  const std::string line =
      fmt::format("[{:<{}}] {:3.0f} %  {:.0f} MB/s  {} left", bar, kBarWidth, 100.0 * share,
                  static_cast<double>(p.done_bytes) / t / 1e6, clock_text(left));
  const std::lock_guard lock(mutex_);
  fmt::print(stderr, "\r{:<{}}", line, kLineWidth);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressView::clear() {
  if (std::exchange(drawn_, false)) fmt::print(stderr, "\r{:{}}\r", "", kLineWidth);
}

void ProgressView::tensor_line(size_t index, const quantize::TensorReport& report) {
  const quantize::PlanEntry& e = plan_.entries[index];
  std::string line =
      fmt::format("[{:>4}/{}] {} {} {} -> {}, {:.2f} MiB", index + 1, plan_.entries.size(),
                  gguf::printable(e.name), quantize::shape_text(e.shape), name_of(e.from),
                  name_of(e.to.type), static_cast<double>(e.to_bytes) / (1 << 20));
  if (report.measured) line += fmt::format(", RMSE {:.3e}", report.rmse(e.n_elem));
  if (!e.to.why.empty()) line += fmt::format(" ({})", e.to.why);
  const std::lock_guard lock(mutex_);
  clear();
  fmt::print(stderr, "{}\n", line);
}

}  // namespace infer::tools
