#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

/// Programs that are watched while they work, and the disks they are starved on.
namespace infer::test {

/// Starts a program whose output nobody reads.
inline pid_t start_program(const std::string& program, const std::vector<std::string>& args) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  std::vector<std::string> all = args;
  all.insert(all.begin(), program);
  std::vector<char*> argv;
  for (std::string& a : all) argv.push_back(a.data());
  argv.push_back(nullptr);
  const int null = open("/dev/null", O_WRONLY);
  dup2(null, STDOUT_FILENO);
  dup2(null, STDERR_FILENO);
  execv(program.c_str(), argv.data());
  _exit(127);
}

/// A number of a file of /proc/<pid>, whose lines are "name: number ..."; nothing once it ended.
inline std::optional<int64_t> proc_number(pid_t pid, const std::string& file,
                                          std::string_view name) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/" + file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name) && line.substr(name.size(), 1) == ":")
      return std::atoll(line.c_str() + name.size() + 1);
  }
  return std::nullopt;
}

/// Waits until the program has written so many bytes, wherever; false, with what waitpid says of
/// it, when it ends before.
inline bool wait_until_written(pid_t pid, int64_t n_bytes, int* status) {
  for (;;) {
    if (proc_number(pid, "io", "wchar").value_or(0) >= n_bytes) return true;
    if (waitpid(pid, status, WNOHANG) == pid) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

/// What quantize may need: 256 MiB by the issue, 64 MiB by the README; sanitizers have their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int64_t kMemoryKib = 256 * 1024;
#else
inline constexpr int64_t kMemoryKib = 64 * 1024;
#endif

/// The most memory that a program had until its end, by looking again and again.
struct PeakMemory {
  int64_t anon_kib = 0, file_kib = 0;
  int status = 0;  ///< of waitpid
};
inline PeakMemory watch_memory(pid_t pid) {
  PeakMemory peak;
  while (waitpid(pid, &peak.status, WNOHANG) == 0) {
    peak.anon_kib = std::max(peak.anon_kib, proc_number(pid, "status", "RssAnon").value_or(0));
    peak.file_kib = std::max(peak.file_kib, proc_number(pid, "status", "RssFile").value_or(0));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return peak;
}

/// It ended well and never needed more than kMemoryKib.
inline void expect_little_memory(const PeakMemory& peak) {
  ASSERT_TRUE(WIFEXITED(peak.status) && WEXITSTATUS(peak.status) == 0) << peak.status;
  EXPECT_GT(peak.anon_kib, 0);
  EXPECT_LT(peak.anon_kib, kMemoryKib);
  EXPECT_LT(peak.file_kib, kMemoryKib);  // program, libraries, few panels: pages are dropped behind
  std::printf("RssAnon %lld KiB, RssFile %lld KiB\n", static_cast<long long>(peak.anon_kib),
              static_cast<long long>(peak.file_kib));
}

/// Sends a signal: SIGKILL ends the program by itself, others make it leave with 130.
inline void expect_stops(pid_t pid, int signal) {
  int status = 0;
  kill(pid, signal);
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  if (signal == SIGKILL) {
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
  } else {
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 130) << status;
  }
}

/// Whether a tmpfs may be mounted at `folder` in a name space of its own.
inline bool can_mount(const std::string& folder) {
  const std::string probe = "unshare -rm mount -t tmpfs none " + folder + " 2>/dev/null";
  return std::system(probe.c_str()) == 0;
}

/// What stands before a command line: a shell that has a file system of `size` at `folder` to
/// itself, with an old out.gguf, does what `prepare` says (ending in && or ;) and then runs the
/// program; prints the folder's files and out.gguf at the end.
inline std::string on_small_disk(const std::string& folder, const std::string& size,
                                 const std::string& prepare) {
  return "unshare -rm sh -c 'mount -t tmpfs -o size=" + size + " none " + folder +
         " && echo old > " + folder + "/out.gguf && " + prepare + " \"$0\" \"$@\"; code=$?; ls " +
         folder + "; cat " + folder + "/out.gguf; exit $code'";
}

}  // namespace infer::test
