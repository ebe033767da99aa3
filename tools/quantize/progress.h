#pragma once

#include <chrono>
#include <cstddef>

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
  double seconds() const;

 private:
  void draw(const quantize::Progress& p);
  void clear();
  void tensor_line(size_t index, const quantize::TensorReport& report);

  const quantize::Plan& plan_;
  bool verbose_;
  bool bar_;
  std::atomic<bool> drawn_{false};
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace infer::tools
