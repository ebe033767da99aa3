#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace infer::test {

/// A program on a terminal of its own (a pseudo-terminal of 24 x 80), and a script that reads and
/// types.
class Terminal {
 public:
  /// Starts the program; `env` entries are NAME=VALUE and come on top of this process's.
  Terminal(const std::string& program, const std::vector<std::string>& args,
           const std::vector<std::string>& env = {});
  ~Terminal();  ///< kills a program that still runs
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool is_open() const { return fd_ >= 0; }
  void type(std::string_view keys);
  /// Reads until `text` appears behind what earlier calls waited for; false when it did not in time
  /// or the program ended.
  bool wait_for(std::string_view text, std::chrono::seconds limit = std::chrono::seconds(60));
  /// Everything read so far, without escape sequences and carriage returns.
  std::string screen() const;
  const std::string& raw() const { return all_; }  ///< the same as it came
  /// Whether the terminal is as a shell wants it: lines, echo, Ctrl-C a signal.
  bool is_cooked() const;
  /// Sends a signal to the program.
  void signal(int number) const;
  /// Waits for the end of the program; its exit code, -1 when it did not end in time or by a
  /// signal.
  int wait_exit(std::chrono::seconds limit = std::chrono::seconds(60));

 private:
  bool read_some(std::chrono::steady_clock::time_point deadline);

  int fd_ = -1;
  pid_t pid_ = -1;
  std::string all_;  ///< as read
  size_t seen_ = 0;  ///< of screen()
};

/// What a reader sees of what a program sent: a carriage return goes back to the begin of the line,
/// and what comes then covers what was there. Without spaces at the ends of lines, empty lines and
/// escape sequences.
std::vector<std::string> visible_lines(const std::string& raw);

}  // namespace infer::test
