#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/reader.h"
#include "tests/support/quantize_input.h"
#include "tests/support/temp_folder.h"
#include "tests/support/terminal.h"

/// What goes wrong while quantize works leaves the old output as it was, and no part of a new one.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class QuantizeFault : public TempFolder {
 protected:
  Outcome run(const std::vector<std::string>& args, const std::string& before = "",
              const std::string& after = "") const {
    return run_program(QUANTIZE_PROGRAM, args, before, after);
  }
  /// One f16 matrix of zeros of so many MiB that take no room on the disk.
  std::string sparse_input(int64_t mib) const {
    constexpr int64_t kRow = 4096;
    const int64_t n_row = mib * (1 << 20) / (kRow * 2);
    GgufBuilder b;
    b.set_string("general.architecture", "llama").set<uint32_t>("llama.block_count", 1);
    b.tensors.push_back(
        {"blk.0.ffn_up.weight", quant_type(DType::kF16).gguf_id, {kRow, n_row}, {}});
    const Bytes bytes = b.bytes();
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    text.resize((text.size() + 31) / 32 * 32);
    const std::string in = write("in.gguf", text);
    fs::resize_file(in, text.size() + static_cast<uintmax_t>(mib) * (1 << 20));
    return in;
  }
  pid_t start(const std::vector<std::string>& args) const {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    std::vector<std::string> all = args;
    all.insert(all.begin(), QUANTIZE_PROGRAM);
    std::vector<char*> argv;
    for (std::string& a : all) argv.push_back(a.data());
    argv.push_back(nullptr);
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execv(QUANTIZE_PROGRAM, argv.data());
    _exit(127);
  }
  std::vector<std::string> temporaries() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == ".tmp") found.push_back(entry.path().string());
    }
    return found;
  }
  /// Waits until the output is being written, or the program has ended.
  bool wait_for_work(pid_t pid, int* status) const {
    for (;;) {
      if (!temporaries().empty()) return true;
      if (waitpid(pid, status, WNOHANG) == pid) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
};

TEST_F(QuantizeFault, InputCutOffAnywhere) {
  const std::string whole = quantize_input(DType::kF16);
  const std::string out = write("out.gguf", "old");
  for (size_t i = 0; i < 100; ++i) {
    const std::string in = write("in.gguf", whole.substr(0, whole.size() * i / 100));
    const Outcome r = run({in, out, "Q4_K_M"});
    ASSERT_EQ(r.exit_code, 1) << i << ": " << r.err;
    ASSERT_THAT(r.err, StartsWith("quantize: error: "));
    ASSERT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
    ASSERT_EQ(slurp(out), "old") << i;
    ASSERT_EQ(n_files(), 2) << i;
  }
  write("in.gguf", whole);
  EXPECT_EQ(run({path("in.gguf"), out, "Q4_K_M"}).exit_code, 0);
}

TEST_F(QuantizeFault, InputIsNotItsOwnOutput) {
  const std::string in = write("in.gguf", quantize_input(DType::kF16));
  const std::string before = slurp(in);
  fs::create_symlink(in, path("link.gguf"));
  fs::create_hard_link(in, path("hard.gguf"));
  for (const std::string& out :
       {in, path("link.gguf"), path("hard.gguf"), (folder_ / "." / "in.gguf").string()}) {
    const Outcome r = run({in, out, "Q8_0"});
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_THAT(r.err, HasSubstr("is the input"));
  }
  EXPECT_EQ(slurp(in), before);
  EXPECT_EQ(n_files(), 3);
}

/// A shell that has a small file system at `folder` to itself and then runs the program; prints the
/// folder's files at the end.
std::string on_small_disk(const std::string& folder, const std::string& prepare) {
  return "unshare -rm sh -c 'mount -t tmpfs -o size=100k none " + folder + " && echo old > " +
         folder + "/out.gguf && " + prepare + " \"$0\" \"$@\"; code=$?; ls " + folder + "; cat " +
         folder + "/out.gguf; exit $code'";
}

TEST_F(QuantizeFault, FullDiskAndReadOnlyFolder) {
  const std::string disk = path("disk");
  fs::create_directory(disk);
  const std::string probe = "unshare -rm mount -t tmpfs none " + disk + " 2>/dev/null";
  if (std::system(probe.c_str()) != 0) GTEST_SKIP() << "mount of a tmpfs is not allowed here";
  const std::string in = write("in.gguf", quantize_input(DType::kF16));
  Outcome r = run({in, disk + "/out.gguf", "F32"}, on_small_disk(disk, "true &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, HasSubstr("out.gguf: the disk is too full: "));
  EXPECT_THAT(r.err, HasSubstr(" bytes are needed, "));
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in, disk + "/out.gguf", "Q4_0"},
          on_small_disk(disk, "mount -o remount,ro " + disk + " &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_EQ(r.err,
            "quantize: error: " + disk + "/out.gguf: cannot create: Read-only file system\n");
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in, disk + "/out.gguf", "Q4_0"}, on_small_disk(disk, "true &&"));
  EXPECT_EQ(r.exit_code, 0) << r.err;
}

TEST_F(QuantizeFault, FileSizeLimit) {
  // The space check sees a large disk; making room for the file fails.
  const std::string in = write("in.gguf", quantize_input(DType::kF16));
  const std::string out = write("out.gguf", "old");
  const Outcome r = run({in, out, "F32"}, "ulimit -f 64;");
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, HasSubstr("out.gguf: cannot make room: File too large"));
  EXPECT_EQ(slurp(out), "old");
  EXPECT_EQ(n_files(), 2);
}

TEST_F(QuantizeFault, KilledHalfWay) {
  const std::string in = sparse_input(512);
  const std::string out = write("out.gguf", "old");
  const pid_t pid = start({in, out, "Q6_K", "--report", path("r.json")});
  int status = 0;
  ASSERT_TRUE(wait_for_work(pid, &status));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  kill(pid, SIGKILL);
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(slurp(out), "old");
  ASSERT_EQ(temporaries().size(), 1u);
  fs::resize_file(in, 100);  // a run that fails before it writes
  EXPECT_EQ(run({in, out, "Q8_0"}).exit_code, 1);
  EXPECT_EQ(temporaries().size(), 1u);
  write("in.gguf", quantize_input(DType::kF16));
  EXPECT_EQ(run({in, out, "Q8_0"}).exit_code, 0);
  EXPECT_TRUE(temporaries().empty());
  EXPECT_TRUE(gguf::Reader::open(out).ok());
}

TEST_F(QuantizeFault, InterruptedHalfWay) {
  const std::string in = sparse_input(1024);
  const std::string out = write("out.gguf", "old");
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t pid = start({in, out, "Q6_K", "-t", "2", "--report", path("r.json")});
    int status = 0;
    ASSERT_TRUE(wait_for_work(pid, &status));
    kill(pid, signal);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_EQ(slurp(out), "old");
    EXPECT_EQ(n_files(), 2);
  }
}

TEST_F(QuantizeFault, ATerminalShowsABarThatGoesAway) {
  Terminal terminal(QUANTIZE_PROGRAM, {sparse_input(64), path("out.gguf"), "Q6_K", "-v"});
  ASSERT_TRUE(terminal.is_open());
  EXPECT_TRUE(terminal.wait_for(" MB/s  ")) << terminal.screen();
  EXPECT_TRUE(terminal.wait_for(" left")) << terminal.screen();
  EXPECT_TRUE(terminal.wait_for("[   1/1] blk.0.ffn_up.weight [4096, 8192] f16 -> q6_k"))
      << terminal.screen();
  EXPECT_TRUE(terminal.wait_for("out.gguf: Q6_K, 64.00 -> 26.25 MiB")) << terminal.screen();
  EXPECT_EQ(terminal.wait_exit(), 0);
}

/// A number of /proc/<pid>/status in KiB.
std::optional<int64_t> status_kib(pid_t pid, std::string_view field) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field)) return std::atoll(line.c_str() + field.size() + 1);
  }
  return std::nullopt;
}

TEST_F(QuantizeFault, MemoryDoesNotGrowWithTheTensor) {
  const std::string in = sparse_input(2048);
  if (fs::space(folder_).available < (uintmax_t{2} << 30)) GTEST_SKIP() << "no room for the output";
  const pid_t pid = start({in, path("out.gguf"), "Q4_0", "-t", "2"});
  int64_t anon = 0;
  int64_t file = 0;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    anon = std::max(anon, status_kib(pid, "RssAnon:").value_or(0));
    file = std::max(file, status_kib(pid, "RssFile:").value_or(0));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_GT(anon, 0);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int64_t kLimit = 256 * 1024;  // the sanitizer's own
#else
  constexpr int64_t kLimit = 64 * 1024;
#endif
  EXPECT_LT(anon, kLimit);
  EXPECT_LT(file, kLimit);  // programs, libraries and a few panels: pages are dropped behind
  RecordProperty("RssAnon_KiB", std::to_string(anon));
  RecordProperty("RssFile_KiB", std::to_string(file));
  std::printf("RssAnon %lld KiB, RssFile %lld KiB\n", static_cast<long long>(anon),
              static_cast<long long>(file));
  const auto out = gguf::Reader::open(path("out.gguf"));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ((*out)->tensors().front().view.n_bytes, (int64_t{2} << 30) / 2 / 32 * 18);
}

}  // namespace
}  // namespace infer::test
