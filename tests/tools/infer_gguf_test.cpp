#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/quant_types.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_folder.h"

/// The program infer-gguf as a person runs it: exit codes, stdout, one line on stderr.
namespace infer::test {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;
using testing::StartsWith;

class InferGguf : public TempFolder {
 protected:
  std::string write(const std::string& name, const Bytes& bytes) const {
    return TempFolder::write(name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  Outcome run(const std::vector<std::string>& args) const {
    return run_program(INFER_GGUF_PROGRAM, args);
  }
  static void expect_error(const Outcome& r, int exit_code, std::string_view word) {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, StartsWith("infer-gguf: error: "));
    EXPECT_THAT(r.err, HasSubstr(std::string(word)));
    EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
  }
};

TEST_F(InferGguf, HelpIsAResultAndUsageErrorsAreTwo) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* word : {"info", "check", "split", "merge"}) {
    EXPECT_THAT(help.out, HasSubstr(word));
  }
  expect_error(run({}), 2, "subcommand");
  expect_error(run({"frob"}), 2, "subcommand");
  expect_error(run({"info"}), 2, "FILE");
  expect_error(run({"info", "a", "b"}), 2, "b");
  expect_error(run({"info", "--no-such-flag", "a"}), 2, "--no-such-flag");
  expect_error(run({"split", "a", "b"}), 2, "--max-tensors");
  for (const char* size : {"0", "-1", "1X", "M", "99999999999G"}) {
    expect_error(run({"split", "--max-size", size, "a", "b"}), 2, "is not a size");
  }
  expect_error(run({"split", "--max-tensors", "0", "a", "b"}), 2, "--max-tensors");
}

TEST_F(InferGguf, FailuresAreOneLineAndExitOne) {
  expect_error(run({"info", path("none.gguf")}), 1, "none.gguf: cannot open");
  expect_error(run({"check", path("none.gguf")}), 1, "none.gguf: cannot open");
  GgufBuilder b = good_gguf();
  b.tensor("t.i8").type = 36;
  const std::string bad = write("bad.gguf", b.bytes());
  for (const char* command : {"info", "check"}) {
    expect_error(run({command, bad}), 1, "bad.gguf: tensor 't.i8' has type 36 (iq4_nl_4_4)");
  }
  const std::string good = write("good.gguf", good_gguf().bytes());
  expect_error(run({"merge", good, path("none/out.gguf")}), 1, "none/out.gguf: cannot create");
}

TEST_F(InferGguf, InfoAsTextAndJson) {
  const std::string file = write("good.gguf", good_gguf().bytes());
  const Outcome text = run({"info", "--kv", "--tensors", file});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_EQ(text.err, "");
  EXPECT_THAT(text.out, HasSubstr("architecture  llama"));
  EXPECT_THAT(text.out, HasSubstr("kv a.i16 = i16 -30000\n"));
  EXPECT_THAT(text.out, HasSubstr("kv b.bool = array of 3 bool: true, false, true\n"));
  EXPECT_THAT(text.out, HasSubstr("tensor t.q4_0 q4_0 [64, 2, 2] 144 bytes at 64\n"));

  const Outcome plain = run({"info", "--json", file});
  EXPECT_FALSE(nlohmann::json::parse(plain.out).contains("kv"));
  const Outcome json = run({"info", "--json", "--kv", "--tensors", file});
  const auto j = nlohmann::json::parse(json.out);
  EXPECT_EQ(j["n_tensors"], 5);
  EXPECT_EQ(j["kv"].size(), good_gguf().kvs.size());
  EXPECT_EQ(j["kv"][12]["key"], "a.empty");
  EXPECT_EQ(j["types"]["q6_k"]["n_bytes"], 420);
  EXPECT_EQ(j["tensors"][2]["shape"], (std::vector<int64_t>{64, 2, 2}));
  for (const auto& kv : j["kv"]) {
    if (kv["key"] == "b.arr") {
      EXPECT_EQ(kv["value"], nlohmann::json::parse("[[7, 8], []]"));
    }
    if (kv["key"] == "a.u64") {
      EXPECT_EQ(kv["value"], UINT64_MAX);
    }
    if (kv["key"] == "b.u64") {
      EXPECT_EQ(kv["value"][1], UINT64_MAX);
    }
    if (kv["key"] == "b.str") {
      EXPECT_EQ(kv["value"].size(), 50u);
    }
  }
}

TEST_F(InferGguf, AFullDiskIsAFailure) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full is not there";
  const std::string file = write("good.gguf", good_gguf().bytes());
  const std::string command = "'" INFER_GGUF_PROGRAM "' info " + file + " >/dev/full 2>/dev/null";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
}

TEST_F(InferGguf, JsonStaysValidForAnyBytes) {
  GgufBuilder b;
  b.set_string("a\xff", "\xc0\xaf\n").set<float>("nan", std::numeric_limits<float>::quiet_NaN());
  const Outcome r = run({"info", "--json", "--kv", write("odd.gguf", b.bytes())});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_TRUE(nlohmann::json::accept(r.out)) << r.out;
}

TEST_F(InferGguf, InfoOfADownloadNeedsOnlyTheHeader) {
  const std::string file = write("part.gguf", good_gguf().header());
  expect_error(run({"info", file}), 1, "part.gguf: ");
  const Outcome r = run({"info", "--header-only", file});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_THAT(r.out, HasSubstr("tensors       5,"));
}

GgufBuilder with_tokenizer() {
  GgufBuilder b;
  b.set_string("general.architecture", "llama").set_string("tokenizer.ggml.model", "llama");
  b.set_strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "<0x0A>", "a"});
  b.set_array<int32_t>("tokenizer.ggml.token_type", {2, 3, 6, 1});
  b.set_array<float>("tokenizer.ggml.scores", {0, 0, 0, -1});
  b.set_strings("tokenizer.ggml.merges", {"a b"}).set<uint32_t>("tokenizer.ggml.bos_token_id", 1);
  return b.add_tensor("token_embd.weight", DType::kF16, {2, 4});
}

TEST_F(InferGguf, CheckFindsWhatTheReaderCannot) {
  const Outcome ok = run({"check", write("ok.gguf", with_tokenizer().bytes())});
  EXPECT_EQ(ok.exit_code, 0) << ok.out << ok.err;
  EXPECT_THAT(ok.out, HasSubstr("ok.gguf: ok, 7 keys, 1 tensors"));

  const auto found = [&](auto&& spoil, std::string_view word) {
    GgufBuilder b = with_tokenizer();
    spoil(b);
    const Outcome r = run({"check", write("bad.gguf", b.bytes())});
    EXPECT_EQ(r.exit_code, 1) << word;
    EXPECT_THAT(r.out, HasSubstr(std::string(word)));
    EXPECT_THAT(r.err, HasSubstr("infer-gguf: error: "));
    EXPECT_THAT(r.err, HasSubstr("1 problem found"));
  };
  using B = GgufBuilder;
  found([](B& b) { b.set_array<int32_t>("tokenizer.ggml.token_type", {1}); },
        "'tokenizer.ggml.token_type' is array of 1 i32, an array of 4 i32 is expected");
  found(
      [](B& b) {
        b.set_array<uint32_t>("tokenizer.ggml.token_type", {2, 3, 6, 1});
      },
      "array of 4 u32");
  found(
      [](B& b) {
        b.set_array<int32_t>("tokenizer.ggml.token_type", {2, 3, 6, 7});
      },
      "type 7 for token 3");
  found(
      [](B& b) {
        b.set_array<int32_t>("tokenizer.ggml.token_type", {2, 3, 6, 6});
      },
      "token 3 'a' is of type byte");
  found(
      [](B& b) {
        b.set_strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "<0x-1>", "a"});
      },
      "token 2 '<0x-1>' is of type byte");
  found([](B& b) { b.set_array<double>("tokenizer.ggml.scores", {0, 0, 0, 0}); }, "array of 4 f64");
  found(
      [](B& b) {
        b.set_array<float>("tokenizer.ggml.scores", {0, 0, 0, INFINITY});
      },
      "score inf for token 3");
  found([](B& b) { b.set_strings("tokenizer.ggml.merges", {"a b", "ab"}); }, "entry 1 'ab'");
  found([](B& b) { b.set<uint32_t>("tokenizer.ggml.bos_token_id", 4); },
        "'tokenizer.ggml.bos_token_id' is u32 4, an id from 0 to 3");
  found([](B& b) { b.set<float>("tokenizer.ggml.bos_token_id", 1); }, "is f32 1");
  found(
      [](B& b) {
        b.set_array<int32_t>("tokenizer.ggml.tokens", {1, 2, 3, 4});
      },
      "array of 4 i32, an array of str");
  found([](B& b) { b.remove("tokenizer.ggml.tokens"); }, "'tokenizer.ggml.tokens' is missing");
  found(
      [](B& b) {
        b.tensors.clear(), b.add_tensor("token_embd.weight", DType::kF16, {2, 5});
      },
      "has 5 rows");
}

TEST_F(InferGguf, CheckFindsNumbersThatAreNone) {
  struct Case {
    DType type;
    size_t offset;  ///< of the field from the start of the second block
    std::vector<uint8_t> bytes;
    std::string_view word;
  };
  const std::vector<Case> cases = {
      {DType::kF32,
       0,
       {0, 0, 0x80, 0x7f},
       "1 values that are NaN or infinite, the first at element 1"},
      {DType::kF16, 0, {0, 0xfc}, "element 1"},
      {DType::kBF16, 0, {0xc0, 0x7f}, "element 1"},
      {DType::kQ8_0,
       0,
       {0, 0x7c},
       "1 block scales that are NaN or infinite, the first at element 32"},
      {DType::kQ4_1, 2, {1, 0x7c}, "element 32"},
      {DType::kQ2_K, 82, {0, 0x7e}, "element 256"},
      {DType::kQ3_K, 108, {0, 0x7e}, "element 256"},
      {DType::kQ4_K, 2, {0, 0xfe}, "element 256"},
      {DType::kQ6_K, 208, {0, 0x7c}, "element 256"},
      {DType::kIQ1_M, 54, {0, 0x7f}, "tensor 't'"},
      {DType::kTQ1_0, 52, {0, 0x7c}, "element 256"},
      {DType::kMXFP4, 0, {0xff}, "element 32"},
      {DType::kNVFP4, 3, {0x7f}, "element 64"},
  };
  for (const Case& c : cases) {
    GgufBuilder b;
    const QuantType& q = quant_type(c.type);
    b.add_tensor("t", c.type, {2 * q.block_len});
    Bytes& data = b.tensors[0].data;
    EXPECT_EQ(run({"check", write("a.gguf", b.bytes())}).exit_code, 0) << q.name;
    for (size_t i = 0; i < c.bytes.size(); ++i) {
      data[static_cast<size_t>(q.block_bytes) + c.offset + i] = static_cast<std::byte>(c.bytes[i]);
    }
    if (c.type == DType::kIQ1_M) data[static_cast<size_t>(q.block_bytes) + 53] = std::byte{0xf0};
    const Outcome r = run({"check", write("a.gguf", b.bytes())});
    EXPECT_EQ(r.exit_code, 1) << q.name;
    EXPECT_THAT(r.out, HasSubstr(std::string(c.word))) << q.name;
  }
}

TEST_F(InferGguf, SplitAndMergeGiveBackTheFile) {
  GgufBuilder b = good_gguf();
  for (GgufBuilder::Tensor& t : b.tensors) std::fill(t.data.begin(), t.data.end(), std::byte{5});
  const std::string file = write("good.gguf", b.bytes());
  const Outcome split = run({"split", "--max-tensors", "3", file, path("s")});
  EXPECT_EQ(split.exit_code, 0) << split.err;
  EXPECT_EQ(split.out, path("s-00001-of-00002.gguf\n") + path("s-00002-of-00002.gguf\n"));
  EXPECT_EQ(run({"check", path("s-00001-of-00002.gguf")}).exit_code, 0);
  EXPECT_THAT(run({"info", path("s-00001-of-00002.gguf")}).out, HasSubstr("2 files"));
  EXPECT_THAT(run({"info", path("s-00002-of-00002.gguf")}).out, HasSubstr("tensors       2,"));
  expect_error(run({"check", path("s-00002-of-00002.gguf")}), 1, path("s-00001-of-00002.gguf"));
  expect_error(run({"merge", path("s-00002-of-00002.gguf"), path("m.gguf")}), 1, "open the first");
  EXPECT_EQ(run({"merge", path("s-00001-of-00002.gguf"), path("m.gguf")}).exit_code, 0);
  EXPECT_EQ(slurp(path("m.gguf")), slurp(file));

  const Outcome by_size = run({"split", "--max-size", "1KiB", file, path("z")});
  EXPECT_EQ(by_size.out, path("z-00001-of-00001.gguf\n"));
}

TEST_F(InferGguf, ASplitThatFailsLeavesNothing) {
  const std::string file = write("good.gguf", good_gguf().bytes());
  const std::string second = path("s-00002-of-00002.gguf");
  fs::create_directories(second + "/in-the-way");
  expect_error(run({"split", "--max-tensors", "3", file, path("s")}), 1, second);
  EXPECT_FALSE(fs::exists(path("s-00001-of-00002.gguf")));
}

TEST_F(InferGguf, PublishedVocabulariesPass) {
  const char* shared = std::getenv("INFER_SHARED");
  const fs::path folder =
      fs::path(shared != nullptr ? shared : "../shared") / "data/tokenizer/gguf-vocab";
  if (!fs::is_directory(folder)) GTEST_SKIP() << folder << " is not there";
  int n = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const Outcome r = run({"check", entry.path().string()});
    EXPECT_EQ(r.exit_code, 0) << entry.path() << r.out << r.err;
    ++n;
  }
  EXPECT_GT(n, 0);
}

}  // namespace
}  // namespace infer::test
