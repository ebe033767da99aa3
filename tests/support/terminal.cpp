#include "tests/support/terminal.h"

#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <thread>

namespace infer::test {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void run_child(const std::string& program, const std::vector<std::string>& args,
                            const std::vector<std::string>& env) {
  for (const std::string& e : env) {
    const size_t at = e.find('=');
    setenv(e.substr(0, at).c_str(), e.substr(at + 1).c_str(), 1);
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(127);
}

/// End of the escape sequence that begins at `at` (ECMA-48: CSI parameters and final byte, or one
/// byte).
size_t escape_end(const std::string& text, size_t at) {
  size_t i = at + 1;
  if (i < text.size() && text[i] == '[') {
    do ++i;
    while (i < text.size() && (text[i] < '@' || text[i] > '~'));
  }
  return std::min(i + 1, text.size());
}

}  // namespace

Terminal::Terminal(const std::string& program, const std::vector<std::string>& args,
                   const std::vector<std::string>& env) {
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 80;
  pid_ = forkpty(&fd_, nullptr, nullptr, &size);
  if (pid_ == 0) run_child(program, args, env);
}

Terminal::~Terminal() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (fd_ >= 0) close(fd_);
}

void Terminal::type(std::string_view keys) {
  while (!keys.empty()) {
    const ssize_t n = write(fd_, keys.data(), keys.size());
    if (n <= 0) return;
    keys.remove_prefix(static_cast<size_t>(n));
  }
}

bool Terminal::read_some(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd p{.fd = fd_, .events = POLLIN, .revents = 0};
  if (left.count() <= 0 || poll(&p, 1, static_cast<int>(left.count())) <= 0) return false;
  char chunk[4096];
  const ssize_t n = read(fd_, chunk, sizeof(chunk));  // EIO: the program has ended
  if (n <= 0) return false;
  all_.append(chunk, static_cast<size_t>(n));
  return true;
}

bool Terminal::wait_for(std::string_view text, std::chrono::seconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  do {
    const std::string shown = screen();
    if (const size_t at = shown.find(text, seen_); at != std::string::npos) {
      seen_ = at + text.size();
      return true;
    }
  } while (read_some(deadline));
  return false;
}

std::string Terminal::screen() const {
  std::string out;
  for (size_t i = 0; i < all_.size();) {
    if (all_[i] == '\033') {
      i = escape_end(all_, i);
      continue;
    }
    if (all_[i] != '\r') out += all_[i];
    ++i;
  }
  return out;
}

bool Terminal::is_cooked() const {
  termios modes{};
  constexpr tcflag_t kCooked = ICANON | ECHO | ISIG;
  return tcgetattr(fd_, &modes) == 0 && (modes.c_lflag & kCooked) == kCooked &&
         modes.c_cc[VINTR] == 3;
}

void Terminal::signal(int number) const {
  if (pid_ > 0) kill(pid_, number);
}

int Terminal::wait_exit(std::chrono::seconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  int status = 0;
  while (Clock::now() < deadline) {
    (void)read_some(std::min(deadline, Clock::now() + std::chrono::milliseconds(20)));
    const pid_t ended = waitpid(pid_, &status, WNOHANG);
    if (ended == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  return -1;
}

std::vector<std::string> visible_lines(const std::string& raw) {
  std::vector<std::string> lines(1);
  size_t column = 0;
  for (size_t i = 0; i < raw.size(); ++i) {
    std::string& line = lines.back();
    if (raw[i] == '\033') {
      i = escape_end(raw, i) - 1;
    } else if (raw[i] == '\n') {
      lines.emplace_back();
      column = 0;
    } else if (raw[i] == '\r') {
      column = 0;
    } else {
      line.resize(std::max(line.size(), column + 1), ' ');
      line[column++] = raw[i];
    }
  }
  for (std::string& line : lines) line.resize(line.find_last_not_of(' ') + 1);
  std::erase(lines, "");
  return lines;
}

}  // namespace infer::test
