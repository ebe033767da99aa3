#include <sys/wait.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "gguf/reader.h"
#include "tests/support/running_program.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_env.h"

/// The program quantize on Hugging Face folders, whole and broken: whatever is wrong is one line,
/// and neither the old output nor a file of the folder is touched.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

/// Half of what the sparse folder becomes is more; the header is less.
constexpr int64_t kHalfWay = int64_t{16} << 20;

class QuantizeFolder : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    const fs::path origin = shared_dir() / "golden/hf/llama-tied-bpe";
    if (!fs::exists(origin)) GTEST_SKIP() << origin << " is not there (INFER_SHARED)";
    in_ = path("model");
    fs::create_directory(in_);
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors",
                             "tokenizer.json", "tokenizer_config.json"})
      write(std::string("model/") + name, slurp(origin / name));  // the originals are read-only
  }
  Outcome run(const std::vector<std::string>& args, const std::string& before = "") const {
    return run_program(QUANTIZE_PROGRAM, args, before);
  }
  std::string file(const std::string& name) const { return in_ + "/" + name; }
  static void expect_error(const Outcome& r, int exit_code, const std::string& word) {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, StartsWith("quantize: error: "));
    EXPECT_THAT(r.err, HasSubstr(word));
    EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
  }
  /// Runs with the file cut off at n places.
  void expect_refused_cuts(const std::string& name, size_t n) const {
    const std::string whole = slurp(file(name));
    const std::string out = write("out.gguf", "old");
    for (size_t i = 0; i < n; ++i) {
      SCOPED_TRACE(fmt::format("{} of {} bytes", whole.size() * i / n, whole.size()));
      write("model/" + name, whole.substr(0, whole.size() * i / n));
      expect_error(run({in_, out, "Q4_K_M"}), 1, file(name) + ": ");
      ASSERT_EQ(slurp(out), "old");
      ASSERT_EQ(n_files(), 2);
      ASSERT_FALSE(HasFailure());
    }
    write("model/" + name, whole);
    EXPECT_EQ(run({in_, out, "Q4_K_M"}).exit_code, 0);
    EXPECT_TRUE(gguf::Reader::open(out).ok());
  }
  /// A model of one layer and 1.5 GiB of bf16 zeros that take no room on the disk.
  void make_large() const {
    constexpr int64_t kEmbd = 2048, kFf = 131072, kVocab = 512;
    auto config = nlohmann::json::parse(slurp(file("config.json")));
    config["hidden_size"] = kEmbd;
    config["intermediate_size"] = kFf;
    config["num_hidden_layers"] = 1;
    config["num_attention_heads"] = kEmbd / 64;
    write("model/config.json", config.dump());
    std::string header;
    int64_t at = 0;
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
      int64_t n_bytes = 2;
      for (const int64_t d : shape) n_bytes *= d;
      header += fmt::format(R"({}"{}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                            at == 0 ? "{" : ",", name, fmt::join(shape, ","), at, at + n_bytes);
      at += n_bytes;
    };
    const std::string layer = "model.layers.0.";
    add("model.embed_tokens.weight", {kVocab, kEmbd});
    add("model.norm.weight", {kEmbd});
    add(layer + "input_layernorm.weight", {kEmbd});
    add(layer + "post_attention_layernorm.weight", {kEmbd});
    add(layer + "self_attn.q_proj.weight", {kEmbd, kEmbd});
    add(layer + "self_attn.k_proj.weight", {64, kEmbd});
    add(layer + "self_attn.v_proj.weight", {64, kEmbd});
    add(layer + "self_attn.o_proj.weight", {kEmbd, kEmbd});
    add(layer + "mlp.gate_proj.weight", {kFf, kEmbd});
    add(layer + "mlp.up_proj.weight", {kFf, kEmbd});
    add(layer + "mlp.down_proj.weight", {kEmbd, kFf});
    header += "}";
    const uint64_t n_header = header.size();
    header.insert(0, reinterpret_cast<const char*>(&n_header), sizeof(n_header));
    write("model/model.safetensors", header);
    fs::resize_file(file("model.safetensors"), header.size() + static_cast<uintmax_t>(at));
  }

  std::string in_;
};

TEST_F(QuantizeFolder, WeightsCutOffAnywhere) { expect_refused_cuts("model.safetensors", 100); }
TEST_F(QuantizeFolder, ConfigCutOffAnywhere) { expect_refused_cuts("config.json", 100); }
TEST_F(QuantizeFolder, TokenizerCutOffAnywhere) { expect_refused_cuts("tokenizer.json", 30); }

TEST_F(QuantizeFolder, FullDiskAndReadOnlyFolder) {
  const std::string disk = path("disk");
  fs::create_directory(disk);
  if (!can_mount(disk)) GTEST_SKIP() << "mount of a tmpfs is not allowed here";
  const std::string out = disk + "/out.gguf";
  Outcome r = run({in_, out, "F16"}, on_small_disk(disk, "300k", "true &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, StartsWith("quantize: error: " + out + ": the disk is too full: "));
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in_, out, "Q4_0"}, on_small_disk(disk, "300k", "mount -o remount,ro " + disk + " &&"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, StartsWith("quantize: error: " + out + ": cannot create: Read-only"));
  EXPECT_EQ(r.out, "out.gguf\nold\n");
  r = run({in_, out, "Q4_0"}, on_small_disk(disk, "300k", "true &&"));
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("out.gguf\nGGUF"));
}

TEST_F(QuantizeFolder, FilesOfTheInputAreNotReplaced) {
  fs::create_directory_symlink(in_, path("link"));
  for (const std::string name : {"model.safetensors", "config.json", "generation_config.json",
                                 "tokenizer.json", "tokenizer_config.json"}) {
    SCOPED_TRACE(name);
    const std::string before = slurp(file(name));
    expect_error(run({in_, file(name), "Q8_0"}), 2, name + ": is a file of the input");
    expect_error(run({in_, path("link/" + name), "Q8_0"}), 2, name + ": is a file of the input");
    expect_error(run({path("link"), file(name), "Q8_0"}), 2, name + ": is a file of the input");
    expect_error(run({".", name, "Q8_0"}, "cd " + in_ + " &&"), 2, ": is a file of the input");
    EXPECT_TRUE(slurp(file(name)) == before);
  }
  expect_error(run({in_, in_, "Q8_0"}), 2, ": is the input");
  for (const std::string& report :
       {file("config.json"), file("model.safetensors"), path("link/tokenizer.json")}) {
    const std::string before = slurp(report);
    expect_error(run({in_, path("out.gguf"), "Q8_0", "--report", report}), 2, ": would replace '");
    EXPECT_TRUE(slurp(report) == before);
  }
  EXPECT_EQ(n_files(), 2);
  EXPECT_EQ(std::distance(fs::directory_iterator(in_), {}), 5);
  // A GGUF in the folder is an earlier output, and the default place of the next.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(run({in_, "Q8_0"}).exit_code, 0);
  EXPECT_TRUE(gguf::Reader::open(file("ggml-model-Q8_0.gguf")).ok());
}

/// Hugging Face's cache keeps the files under other names elsewhere.
TEST_F(QuantizeFolder, NorAreFilesBehindItsLinks) {
  fs::rename(file("model.safetensors"), path("blob"));
  fs::create_symlink(path("blob"), file("model.safetensors"));
  const std::string before = slurp(path("blob"));
  expect_error(run({in_, path("blob"), "Q8_0"}), 2, "blob: is a file of the input");
  EXPECT_TRUE(slurp(path("blob")) == before);
  EXPECT_EQ(run({in_, path("out.gguf"), "Q8_0"}).exit_code, 0);
}

TEST_F(QuantizeFolder, WeightsInPickleFilesAreRefused) {
  const std::string out = write("out.gguf", "old");
  fs::rename(file("model.safetensors"), file("pytorch_model.bin"));
  expect_error(run({in_, out, "Q8_0"}), 1, in_ + ": only pickle weights (pytorch_model.bin)");
  fs::remove(file("pytorch_model.bin"));
  expect_error(run({in_, out, "Q8_0"}), 1, in_ + ": neither model.safetensors nor ");
  EXPECT_EQ(slurp(out), "old");
  EXPECT_EQ(n_files(), 2);
}

TEST_F(QuantizeFolder, MemoryDoesNotGrowWithTheModel) {
  make_large();
  if (fs::space(folder_).available < (uintmax_t{1} << 30)) GTEST_SKIP() << "no room for the output";
  const pid_t pid = start_program(QUANTIZE_PROGRAM, {in_, path("out.gguf"), "Q4_0", "-t", "2"});
  expect_little_memory(watch_memory(pid));
  const auto out = gguf::Reader::open(path("out.gguf"));
  ASSERT_TRUE(out.ok()) << out.error().message;
  EXPECT_EQ((*out)->find_tensor("blk.0.ffn_down.weight")->view.n_bytes, 2048 * 131072 / 32 * 18);
}

TEST_F(QuantizeFolder, StoppedHalfWay) {
  const std::string small = slurp(file("model.safetensors"));
  const std::string small_config = slurp(file("config.json"));
  make_large();
  const std::string out = write("out.gguf", "old");
  for (const int signal : {SIGKILL, SIGINT}) {
    const pid_t pid = start_program(QUANTIZE_PROGRAM, {in_, out, "Q6_K", "-t", "1"});
    int status = 0;
    ASSERT_TRUE(wait_until_written(pid, kHalfWay, &status)) << status;
    expect_stops(pid, signal);
    EXPECT_EQ(slurp(out), "old");
    EXPECT_LE(n_files(), 3);  // of a killed run a temporary file may be left
  }
  EXPECT_EQ(n_files(), 2);  // the next run has removed it
  write("model/config.json", small_config);
  write("model/model.safetensors", small);
  EXPECT_EQ(run({in_, out, "Q6_K"}).exit_code, 0);
  EXPECT_TRUE(gguf::Reader::open(out).ok());
}

}  // namespace
}  // namespace infer::test
