#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace infer::tools {

/// How far a run is: a line on a terminal's stderr that goes away at the end. Elsewhere nothing.
class Progress {
 public:
  /// `unit` is what is counted: "window", "task".
  Progress(std::string_view unit, int64_t n_all);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of them with so many tokens computed; `value` is what is known by now. Ten times a
  /// second at most.
  void show(int64_t done, int64_t n_tok, std::string_view value);
  void clear();
  /// Things done before this run count for nothing in its rate.
  void skip(int64_t done) { before_ = done; }
  bool is_terminal() const { return terminal_; }
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string unit_;
  int64_t n_all_ = 0, before_ = 0;
  bool terminal_ = false;
  size_t width_ = 0;  // of the line that stands there
  Clock::time_point begin_ = Clock::now(), shown_{};
};

}  // namespace infer::tools
