#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/reader.h"
#include "tests/support/quantize_input.h"
#include "tests/support/running_program.h"
#include "tests/support/temp_folder.h"
#include "tests/support/terminal.h"

/// What goes wrong while quantize works leaves the old output as it was, and no part of a new one.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class QuantizeFault : public TempFolder {
 protected:
  Outcome run(const std::vector<std::string>& args, const std::string& before = "",
              const std::string& after = "") const {
    return run_program(QUANTIZE_PROGRAM, args, before, after);
  }
  /// One f16 matrix of zeros of so many MiB that take no room on the disk.
  std::string sparse_input(int64_t mib, int64_t row = 4096) const {
    const int64_t n_row = mib * (1 << 20) / (row * 2);
    GgufBuilder b;
    b.set_string("general.architecture", "llama").set<uint32_t>("llama.block_count", 1);
    b.tensors.push_back({"blk.0.ffn_up.weight", quant_type(DType::kF16).gguf_id, {row, n_row}, {}});
    const Bytes bytes = b.bytes();
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    text.resize((text.size() + 31) / 32 * 32);
    const std::string in = write("in.gguf", text);
    fs::resize_file(in, text.size() + static_cast<uintmax_t>(row * 2 * n_row));
    return in;
  }
  pid_t start(const std::vector<std::string>& args) const {
    return start_program(QUANTIZE_PROGRAM, args);
  }
  /// Where the output has no name until it is whole, there are none.
  std::vector<std::string> temporaries() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == ".tmp") found.push_back(entry.path().string());
    }
    return found;
  }
};

/// The header is written, and some of the tensor.
constexpr int64_t kHalfWay = int64_t{16} << 20;

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

TEST_F(QuantizeFault, FullDiskAndReadOnlyFolder) {
  const std::string disk = path("disk");
  fs::create_directory(disk);
  if (!can_mount(disk)) GTEST_SKIP() << "mount of a tmpfs is not allowed here";
  const std::string in = write("in.gguf", quantize_input(DType::kF16));
  Outcome r = run({in, disk + "/out.gguf", "F32"}, on_small_disk(disk, "100k", "true &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, HasSubstr("out.gguf: the disk is too full: "));
  EXPECT_THAT(r.err, HasSubstr(" bytes are needed, "));
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in, disk + "/out.gguf", "Q4_0"},
          on_small_disk(disk, "100k", "mount -o remount,ro " + disk + " &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_EQ(r.err,
            "quantize: error: " + disk + "/out.gguf: cannot create: Read-only file system\n");
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in, disk + "/out.gguf", "Q4_0"}, on_small_disk(disk, "100k", "true &&"));
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
  const pid_t pid = start({in, out, "Q6_K", "-t", "1", "--report", path("r.json")});
  int status = 0;
  ASSERT_TRUE(wait_until_written(pid, kHalfWay, &status)) << status;
  kill(pid, SIGKILL);
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(slurp(out), "old");
  const std::vector<std::string> left = temporaries();
  EXPECT_LE(left.size(), 1u);
  fs::resize_file(in, 100);  // a run that fails before it writes
  EXPECT_EQ(run({in, out, "Q8_0"}).exit_code, 1);
  EXPECT_EQ(temporaries(), left);
  write("in.gguf", quantize_input(DType::kF16));
  EXPECT_EQ(run({in, out, "Q8_0"}).exit_code, 0);
  EXPECT_TRUE(temporaries().empty());
  EXPECT_TRUE(gguf::Reader::open(out).ok());
}

TEST_F(QuantizeFault, InterruptedHalfWay) {
  const std::string in = sparse_input(1024);
  const std::string out = write("out.gguf", "old");
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t pid = start({in, out, "Q6_K", "-t", "1", "--report", path("r.json")});
    int status = 0;
    ASSERT_TRUE(wait_until_written(pid, kHalfWay, &status)) << status;
    expect_stops(pid, signal);
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

TEST_F(QuantizeFault, TheBarIsGoneBeforeWarningsAndErrors) {
  const std::string in = sparse_input(64, /*row=*/96);
  const std::vector<std::string> args{in, path("out.gguf"), "Q4_K"};
  {
    Terminal terminal(QUANTIZE_PROGRAM, args);
    EXPECT_TRUE(terminal.wait_for(" MB/s  ")) << terminal.screen();
    EXPECT_EQ(terminal.wait_exit(), 0);
    const std::vector<std::string> lines = visible_lines(terminal.raw());
    ASSERT_EQ(lines.size(), 2u) << terminal.raw();
    EXPECT_THAT(lines[0], StartsWith("quantize: warning: 1 of 1 tensors"));
    EXPECT_THAT(lines[0], EndsWith("q5_0 instead of q4_k"));
    EXPECT_THAT(lines[1], StartsWith(path("out.gguf") + ": Q4_K_M, "));
  }
  {
    std::fstream file(in, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(-2, std::ios::end);
    file.write("\x00\x7e", 2);  // not a number
  }
  Terminal terminal(QUANTIZE_PROGRAM, args);
  EXPECT_TRUE(terminal.wait_for(" MB/s  ")) << terminal.screen();
  EXPECT_EQ(terminal.wait_exit(), 1);
  const std::vector<std::string> lines = visible_lines(terminal.raw());
  ASSERT_EQ(lines.size(), 1u) << terminal.raw();
  EXPECT_THAT(lines[0], StartsWith("quantize: error: " + in + ": tensor 'blk.0.ffn_up.weight'"));
  EXPECT_THAT(lines[0], EndsWith("column 95 is nan"));
}

TEST_F(QuantizeFault, MemoryDoesNotGrowWithTheTensor) {
  const std::string in = sparse_input(2048);
  if (fs::space(folder_).available < (uintmax_t{2} << 30)) GTEST_SKIP() << "no room for the output";
  const pid_t pid = start({in, path("out.gguf"), "Q4_0", "-t", "2"});
  expect_little_memory(watch_memory(pid));
  const auto out = gguf::Reader::open(path("out.gguf"));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ((*out)->tensors().front().view.n_bytes, (int64_t{2} << 30) / 2 / 32 * 18);
}

}  // namespace
}  // namespace infer::test
