#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>

#include "quantize/quantize.h"

namespace infer::tools {

/// What a run shows on stderr while it goes on: a bar with MB/s and the time left on a terminal,
/// lines with --verbose.
class ProgressView {
 public:
  ProgressView(const quantize::Plan& plan, bool verbose);
  ~ProgressView();
  ProgressView(const ProgressView&) = delete;
  ProgressView& operator=(const ProgressView&) = delete;

  /// Sets the callbacks that are wanted; the view must outlive the run.
  void attach(quantize::RunOptions* options);
  /// The run is over, well or not: takes the bar away, so that what is printed next has a line of
  /// its own, and gives the seconds that it took.
  double finish();

 private:
  double seconds() const;
  void draw(const quantize::Progress& p);
  void clear();
  void tensor_line(size_t index, const quantize::TensorReport& report);

  const quantize::Plan& plan_;
  bool verbose_;
  bool bar_;
  std::mutex mutex_;  // of the terminal's last line: bar and lines come from different threads
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace infer::tools
