#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/reader.h"
#include "gguf/split.h"
#include "quantize/imatrix.h"
#include "tests/support/model_fixture.h"
#include "tests/support/running_program.h"
#include "tests/support/temp_folder.h"
#include "tests/support/terminal.h"
#include "tests/support/tiny_model.h"

/// `quantize imatrix` as a person runs it: what it writes, its errors and exit codes.
namespace infer::test {
namespace {

using quantize::Imatrix;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class QuantizeImatrix : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    must(tiny_model("llama").write(path("tiny.gguf")));
    std::string text;
    for (int i = 0; i < 100; ++i) text += "the " + std::to_string(i) + " ";
    write("text.txt", text);
  }
  Outcome run(std::vector<std::string> args) const {
    args.insert(args.begin(), "imatrix");
    return run_program(INFER_QUANTIZE_PROGRAM, args, "", "</dev/null");
  }
  /// Reads the tiny model's text in chunks of 32 tokens.
  Outcome collect(std::vector<std::string> more) const {
    std::vector<std::string> args{"-m", path("tiny.gguf"), "-f", path("text.txt"), "-c", "32"};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  }
  void expect_error(const Outcome& r, int exit_code, const std::string& word) const {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    const size_t line = r.err.rfind("quantize: error: ");
    ASSERT_NE(line, std::string::npos) << r.err;
    EXPECT_THAT(r.err.substr(line), HasSubstr(word));
    EXPECT_EQ(r.err.find('\n', line), r.err.size() - 1) << r.err;
  }
};

TEST_F(QuantizeImatrix, WritesAllMatrices) {
  const Outcome r = collect({"-o", path("a.imatrix"), "--chunks", "3", "-t", "2", "--no-ppl"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(r.out, "");
  const Imatrix m = must(Imatrix::read(path("a.imatrix")));
  EXPECT_EQ(m.entries.size(), 2u * 7u);
  EXPECT_EQ(m.n_chunk, 3);
  EXPECT_EQ(m.chunk_tok, 32);
  EXPECT_EQ(m.datasets, std::vector<std::string>{path("text.txt")});
  EXPECT_EQ(m.entries.begin()->second.n_tok, std::vector<int64_t>{96});
  const Outcome one = collect(
      {"-o", path("b.imatrix"), "--chunks", "3", "-tb", "1", "-b", "5", "-t", "1", "-ofreq", "1"});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  EXPECT_EQ(slurp(path("a.imatrix")), slurp(path("b.imatrix")));
  const Outcome output = collect({"-o", path("c.imatrix"), "--chunks", "1", "--process-output"});
  ASSERT_EQ(output.exit_code, 0) << output.err;
  EXPECT_EQ(must(Imatrix::read(path("c.imatrix"))).entries.size(), 2u * 7u + 1u);
}

/// As llama-imatrix's users have it in their scripts.
TEST_F(QuantizeImatrix, LayersForGpusAreOneLine) {
  const Outcome plain = collect({"-o", path("a.imatrix"), "--chunks", "1"});
  const Outcome r = collect({"-o", path("b.imatrix"), "--chunks", "1", "-ngl", "99"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("quantize: warning: -ngl 99: importance matrices are collected on "
                               "the CPU, no GPU takes part\n"));
  EXPECT_THAT(plain.err, Not(HasSubstr("warning")));
  EXPECT_EQ(slurp(path("a.imatrix")), slurp(path("b.imatrix")));
  expect_error(collect({"-ngl", "many"}), 2, "-ngl many: a number of layers");
}

TEST_F(QuantizeImatrix, Combines) {
  ASSERT_EQ(collect({"-o", path("one"), "--chunks", "1"}).exit_code, 0);
  ASSERT_EQ(collect({"-o", path("two"), "--chunks", "2"}).exit_code, 0);
  const Outcome r = run({"--in-file", path("one"), "--in-file", path("two"), "-o", path("all")});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const Imatrix all = must(Imatrix::read(path("all")));
  EXPECT_EQ(all.n_chunk, 3);
  EXPECT_EQ(all.chunk_tok, 32);
  EXPECT_EQ(all.entries.begin()->second.n_tok, std::vector<int64_t>{96});
  const Outcome more = collect({"-o", path("more"), "--chunks", "1", "--in-file", path("all")});
  ASSERT_EQ(more.exit_code, 0) << more.err;
  EXPECT_EQ(must(Imatrix::read(path("more"))).entries.begin()->second.n_tok,
            std::vector<int64_t>{128});
  EXPECT_EQ(must(Imatrix::read(path("more"))).datasets.size(), 3u);
}

/// A text for more chunks than any test waits for.
std::string long_text() {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "the " + std::to_string(i) + " ";
  return text;
}

TEST_F(QuantizeImatrix, StoppedWhileSavingLeavesAWholeFile) {
  write("long.txt", long_text());
  const std::string out = path("out.imatrix");
  ASSERT_EQ(collect({"-o", out, "--chunks", "1"}).exit_code, 0);
  const auto n_bytes = static_cast<int64_t>(std::filesystem::file_size(out));
  const int64_t n = n_files();
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    for (int64_t i = 1; i <= 5; ++i) {
      const pid_t pid = start_program(
          INFER_QUANTIZE_PROGRAM, {"imatrix", "-m", path("tiny.gguf"), "-f", path("long.txt"), "-c",
                                   "32", "-o", out, "-ofreq", "1", "-t", "1"});
      int status = 0;
      ASSERT_TRUE(wait_until_written(pid, 3 * i * n_bytes + i * n_bytes / 5, &status)) << status;
      expect_stops(pid, signal);
      const Imatrix m = must(Imatrix::read(out));
      EXPECT_EQ(m.entries.size(), 2u * 7u);
      EXPECT_GT(m.n_chunk, 1);
      EXPECT_LE(n_files(), n + (signal == SIGKILL ? 1 : 0));
    }
  }
}

TEST_F(QuantizeImatrix, FileSizeLimit) {
  ASSERT_EQ(collect({"-o", path("good"), "--chunks", "1"}).exit_code, 0);
  const std::string out = write("out", "old");
  const int64_t n = n_files();
  for (const std::vector<std::string>& way :
       {std::vector<std::string>{"--in-file", path("good")},
        std::vector<std::string>{"-m", path("tiny.gguf"), "-f", path("text.txt"), "-c", "32"}}) {
    std::vector<std::string> args{"imatrix", "-o", out};
    args.insert(args.end(), way.begin(), way.end());
    expect_error(run_program(INFER_QUANTIZE_PROGRAM, args, "ulimit -f 1;"), 1,
                 "out: cannot write: File too large");
    EXPECT_EQ(slurp(out), "old");
    EXPECT_EQ(n_files(), n);
  }
}

TEST_F(QuantizeImatrix, TheProgressIsGoneBeforeOtherLines) {
  const std::string command = std::string("exec '") + INFER_QUANTIZE_PROGRAM + "' imatrix -m '" +
                              path("tiny.gguf") + "' -f '" + path("text.txt") + "' -c 32 -o '" +
                              path("out") + "' -ofreq 4";
  for (const bool fails : {false, true}) {
    Terminal terminal("/bin/sh", {"-c", (fails ? "ulimit -f 1; " : "") + command});
    EXPECT_TRUE(terminal.wait_for("chunk 4 of ")) << terminal.screen();
    EXPECT_EQ(terminal.wait_exit(), fails ? 1 : 0);
    const std::vector<std::string> lines = visible_lines(terminal.raw());
    ASSERT_FALSE(lines.empty());
    EXPECT_THAT(lines.back(), StartsWith(fails ? "quantize: error: " + path("out") + ": cannot"
                                               : path("out") + ": 14 tensors, "));
    for (const std::string& line : lines) EXPECT_THAT(line, Not(HasSubstr("tok/s"))) << line;
  }
}

TEST_F(QuantizeImatrix, ErrorsAreOneLine) {
  const int64_t n = n_files();
  const std::string out = path("out");
  expect_error(run({"-o", out}), 2, "nothing to do");
  expect_error(run({"-m", path("tiny.gguf"), "-f", path("none"), "-o", out}), 1, "none");
  expect_error(run({"-m", path("none"), "-f", path("text.txt"), "-o", out}), 1, "none");
  expect_error(collect({"-o", path("no/out")}), 1, "no/out");
  expect_error(collect({"-o", path("tiny.gguf")}), 2, "is the input");
  expect_error(collect({"-o", path("text.txt")}), 2, "is the input");
  const auto n_shards = must(gguf::write_split(*must(gguf::Reader::open(path("tiny.gguf"))),
                                               path("s"), {.max_tensors = 8}));
  expect_error(run({"-m", gguf::split_path(path("s"), 0, n_shards), "-f", path("text.txt"), "-o",
                    gguf::split_path(path("s"), 1, n_shards)}),
               2, "is the input '" + gguf::split_path(path("s"), 1, n_shards));
  expect_error(collect({"-o", out, "--chunks", "-2"}), 2, "--chunks");
  expect_error(collect({"-o", out, "--in-file", path("tiny.gguf")}), 1, "tiny.gguf");
  expect_error(collect({"-o", out, "--in-file", path("text.txt")}), 1, "is no importance matrix");
  expect_error(run({"-m", path("tiny.gguf"), "-f", write("short", "the"), "-o", out}), 2,
               "short: a text of");
  EXPECT_EQ(n_files(), n + 1 + n_shards);
}

}  // namespace
}  // namespace infer::test
