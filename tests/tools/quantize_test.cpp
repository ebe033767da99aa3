#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "gguf/reader.h"
#include "gguf/split.h"
#include "quantize/imatrix.h"
#include "tests/support/quantize_input.h"
#include "tests/support/temp_folder.h"

/// The program quantize as a person runs it: exit codes, what it prints, what it writes.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Quantize : public TempFolder {
 protected:
  Outcome run(const std::vector<std::string>& args, const std::string& before = "",
              const std::string& after = "") const {
    return run_program(QUANTIZE_PROGRAM, args, before, after);
  }
  std::string input(DType type = DType::kF16) const {
    return write("in.gguf", quantize_input(type));
  }
  /// A model of nothing but token embeddings, which are the output matrix too.
  std::string tied_input() const {
    GgufBuilder b;
    b.set_string("general.architecture", "llama").set<uint32_t>("llama.block_count", 1);
    b.add_tensor("token_embd.weight", DType::kF32, {96, 4});
    const Bytes bytes = b.bytes();
    return write("tied.gguf", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  static void expect_error(const Outcome& r, int exit_code, std::string_view word) {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_THAT(r.err, StartsWith("quantize: error: "));
    EXPECT_THAT(r.err, HasSubstr(std::string(word)));
    EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
  }
  static std::shared_ptr<const gguf::Reader> open(const std::string& path) {
    const auto file = gguf::Reader::open(path);
    EXPECT_TRUE(file.ok()) << file.error().message;
    return file.ok() ? *file : nullptr;
  }
  static DType type_of(const std::shared_ptr<const gguf::Reader>& file, std::string_view tensor) {
    const gguf::TensorInfo* t = file == nullptr ? nullptr : file->find_tensor(tensor);
    return t == nullptr ? DType::kCount : t->view.type;
  }
};

TEST_F(Quantize, HelpIsAResultAndUsageErrorsAreTwo) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* word : {"--plan", "--strict", "--best", "--report", "--imatrix", "--keep-split",
                           "--allow-requantize", "--leave-output-tensor", "--pure", "--threads",
                           "--output-tensor-type", "--token-embedding-type", "--tensor-type",
                           "--override-kv", "--verbose", "Q4_K_M"})
    EXPECT_THAT(help.out, HasSubstr(word));
  const std::string in = input();
  const std::string out = path("out.gguf");
  expect_error(run({}), 2, "IN [OUT] TYPE [THREADS]");
  expect_error(run({in}), 2, "IN [OUT] TYPE [THREADS]");
  expect_error(run({in, out}), 2, "the type is missing");
  expect_error(run({in, out, "Q9"}), 2, "'Q9' is no type that can be written: F32, F16");
  expect_error(run({in, out, "Q4_0", "x"}), 2, "THREADS 'x'");
  expect_error(run({in, out, "Q4_0", "-3"}), 2, "-3");
  expect_error(run({in, "Q4_0", "2", "3"}), 2, "'3' is one argument too many");
  expect_error(run({in, out, "Q4_0", "2", "3"}), 2, "3");
  expect_error(run({in, out, "Q4_0", "--no-such-flag"}), 2, "--no-such-flag");
  expect_error(run({in, out, "Q4_0", "-t", "-1"}), 2, "--threads");
  expect_error(run({in, out, "Q4_0", "--output-tensor-type", "q9"}), 2,
               "--output-tensor-type: 'q9'");
  expect_error(run({in, out, "Q4_0", "--tensor-type", "("}), 2, "--tensor-type '('");
  expect_error(run({in, out, "Q4_0", "--tensor-type", "(=q8_0"}), 2, "no regular expression");
  expect_error(run({in, out, "Q4_0", "--override-kv", "a"}), 2, "--override-kv 'a'");
  expect_error(run({in, out, "Q4_0", "--isa", "mmx"}), 2, "mmx");
  expect_error(run({in, in, "Q4_0"}), 2, "in.gguf: is the input");
  EXPECT_EQ(n_files(), 1);
}

TEST_F(Quantize, FailuresAreOneLineAndExitOne) {
  const std::string in = input();
  const std::string out = path("out.gguf");
  expect_error(run({path("none.gguf"), out, "Q4_0"}), 1, "none.gguf: cannot open");
  expect_error(run({in, path("none/out.gguf"), "Q4_0"}), 1, "none/out.gguf: cannot create");
  expect_error(run({in, "/dev/null", "Q4_0"}), 1, "/dev/null: is no regular file");
  expect_error(run({in, folder_.string(), "Q4_0"}), 1, "is no regular file");
  expect_error(run({in, out, "Q4_0", "--imatrix", path("none.dat")}), 1, "none.dat");
  expect_error(run({write("text", "not a model"), out, "Q4_0"}), 1, "text");
  expect_error(run({in, out, "Q2_K_S"}), 1, "needs an importance matrix");
  EXPECT_EQ(n_files(), 2);
}

TEST_F(Quantize, PositionalFormsOfLlamaCpp) {
  const std::string in = input();
  const Outcome named = run({in, path("out.gguf"), "q4_k", "2"});
  EXPECT_EQ(named.exit_code, 0) << named.err;
  EXPECT_THAT(named.out, HasSubstr("out.gguf: Q4_K_M, "));
  const Outcome beside = run({in, "15", "1"});
  EXPECT_EQ(beside.exit_code, 0) << beside.err;
  EXPECT_THAT(beside.out, HasSubstr("ggml-model-Q4_K_M.gguf: Q4_K_M, "));
  EXPECT_EQ(slurp(path("out.gguf")), slurp(path("ggml-model-Q4_K_M.gguf")));
  const Outcome here = run({"in.gguf", "Q8_0"}, "cd '" + folder_.string() + "' &&");
  EXPECT_EQ(here.exit_code, 0) << here.err;
  EXPECT_TRUE(fs::exists(path("ggml-model-Q8_0.gguf")));
  const auto file = open(path("out.gguf"));
  EXPECT_EQ(*file->get_int("general.file_type"), 15);
  EXPECT_EQ(*file->get_int("general.quantization_version"), 2);
  EXPECT_EQ(type_of(file, "output.weight"), DType::kQ6_K);
  EXPECT_EQ(type_of(file, "blk.0.attn_q.weight"), DType::kQ4_K);
  EXPECT_EQ(type_of(file, "blk.0.attn_norm.weight"), DType::kF32);
}

TEST_F(Quantize, PlanWritesNothingAndStrictFails) {
  const std::string in = input();
  const Outcome plan = run({in, path("out.gguf"), "Q4_K_M", "--plan"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_EQ(plan.err, "");
  EXPECT_THAT(plan.out, StartsWith("tensor "));
  EXPECT_THAT(plan.out, HasSubstr("row of 64 is no multiple of 256"));
  EXPECT_THAT(plan.out, HasSubstr("the output matrix"));
  EXPECT_THAT(plan.out, HasSubstr("bits per weight"));
  EXPECT_EQ(run({in, "Q4_K_M", "--dry-run"}).out, plan.out);
  expect_error(run({in, path("out.gguf"), "Q4_K_M", "--strict"}), 1, "--strict: 1 of");
  // The output matrix is asked for Q6_K by every mix; here nothing has long enough rows for it.
  expect_error(run({tied_input(), path("out.gguf"), "Q4_0", "--strict"}), 1,
               "--strict: 1 of 1 tensors cannot have their type; the first, 'token_embd.weight': "
               "row of 96 is no multiple of 256, q8_0 instead of q6_k");
  fs::remove(path("tied.gguf"));
  EXPECT_EQ(n_files(), 1);
  EXPECT_EQ(run({in, path("out.gguf"), "Q8_0", "--strict"}).exit_code, 0);
  const Outcome note = run({in, path("out.gguf"), "Q4_K_M"});
  EXPECT_EQ(note.exit_code, 0);
  EXPECT_THAT(note.err, StartsWith("quantize: warning: 1 of "));
}

TEST_F(Quantize, RequantisingHasToBeAllowed) {
  const std::string in = input();
  ASSERT_EQ(run({in, path("q8.gguf"), "Q8_0"}).exit_code, 0);
  expect_error(run({path("q8.gguf"), path("q4.gguf"), "Q4_0"}), 1, "is q8_0 already");
  EXPECT_FALSE(fs::exists(path("q4.gguf")));
  EXPECT_EQ(run({path("q8.gguf"), path("q4.gguf"), "Q4_0", "--allow-requantize"}).exit_code, 0);
  EXPECT_EQ(run({path("q8.gguf"), path("copy.gguf"), "Q8_0"}).exit_code, 0);
  EXPECT_EQ(slurp(path("copy.gguf")), slurp(path("q8.gguf")));
  EXPECT_EQ(run({path("q8.gguf"), path("copy.gguf"), "COPY"}).exit_code, 0);
  EXPECT_EQ(slurp(path("copy.gguf")), slurp(path("q8.gguf")));
}

TEST_F(Quantize, FlagsReachTheRecipe) {
  const std::string in = input();
  const std::string out = path("out.gguf");
  const auto types = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {in, out, "Q4_K_M"});
    const Outcome r = run(flags);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return open(out);
  };
  EXPECT_EQ(type_of(types({"--pure"}), "output.weight"), DType::kQ4_K);
  EXPECT_EQ(type_of(types({"--leave-output-tensor"}), "output.weight"), DType::kF16);
  EXPECT_EQ(type_of(types({"--output-tensor-type", "Q5_0"}), "output.weight"), DType::kQ5_0);
  EXPECT_EQ(type_of(types({"--token-embedding-type", "bf16"}), "token_embd.weight"), DType::kBF16);
  const auto ruled = types({"--tensor-type", "attn_[qk]=q8_0", "--tensor-type", "FFN=q5_1"});
  EXPECT_EQ(type_of(ruled, "blk.0.attn_q.weight"), DType::kQ8_0);
  EXPECT_EQ(type_of(ruled, "blk.1.ffn_down.weight"), DType::kQ5_1);
  const auto keys = types(
      {"--override-kv", "general.name=str:new", "--override-kv", "llama.context_length=int:77"});
  EXPECT_EQ(*keys->get_string("general.name"), "new");
  EXPECT_EQ(*keys->get_int("llama.context_length"), 77);
  EXPECT_EQ(keys->find("llama.context_length")->type(), gguf::ValueType::kU32);
}

TEST_F(Quantize, SplitInAndOut) {
  const std::string whole = input();
  ASSERT_EQ(run({whole, path("whole.gguf"), "Q5_K_M"}).exit_code, 0);
  const auto n = gguf::write_split(*open(whole), path("s"), {.max_tensors = 4});
  ASSERT_TRUE(n.ok() && *n > 2);
  const std::string first = gguf::split_path(path("s"), 0, *n);
  ASSERT_EQ(run({first, path("joined.gguf"), "Q5_K_M"}).exit_code, 0);
  EXPECT_EQ(slurp(path("joined.gguf")), slurp(path("whole.gguf")));
  for (const std::string& out : {path("kept.gguf"), gguf::split_path(path("kept"), 0, *n)}) {
    const Outcome r = run({first, out, "Q5_K_M", "--keep-split"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    const auto kept = open(gguf::split_path(path("kept"), 0, *n));
    ASSERT_NE(kept, nullptr);
    EXPECT_EQ(kept->n_shards(), *n);
    const auto joined = open(path("joined.gguf"));
    for (const gguf::TensorInfo& t : joined->tensors()) {
      const gguf::TensorInfo* other = kept->find_tensor(t.name);
      ASSERT_NE(other, nullptr);
      ASSERT_EQ(other->view.type, t.view.type);
      EXPECT_EQ(std::memcmp(other->view.data, t.view.data, static_cast<size_t>(t.view.n_bytes)), 0);
    }
    for (int64_t i = 0; i < *n; ++i) fs::remove(gguf::split_path(path("kept"), i, *n));
  }
  const std::string second = gguf::split_path(path("s"), 1, *n);
  expect_error(run({second, path("x.gguf"), "Q8_0"}), 2, "is file 2 of");
  expect_error(run({first, first, "Q8_0", "--keep-split"}), 2, "is the input");
  expect_error(run({first, second, "Q8_0"}), 2, "is the input");
}

TEST_F(Quantize, ReportVerboseAndThreads) {
  const std::string in = input();
  const Outcome r =
      run({in, path("out.gguf"), "Q4_K_M", "-v", "-t", "1", "--report", path("r.json")});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("token_embd.weight [64, 96] f16 -> q5_0"));
  EXPECT_THAT(r.err, HasSubstr("RMSE "));
  EXPECT_THAT(r.err, Not(HasSubstr("MB/s")));  // the bar is for terminals
  const auto j = nlohmann::json::parse(slurp(path("r.json")));
  EXPECT_EQ(j["type"], "Q4_K_M");
  EXPECT_EQ(j["threads"], 1);
  EXPECT_EQ(j["totals"]["fallbacks"], 1);
  EXPECT_EQ(j["totals"]["file_bytes"], fs::file_size(path("out.gguf")));
  EXPECT_TRUE(j["totals"]["relative_error"] > 0.01 && j["totals"]["relative_error"] < 0.2);
  const std::string one = slurp(path("out.gguf"));
  for (const char* n : {"2", "3"}) {
    EXPECT_EQ(run({in, path("out.gguf"), "Q4_K_M", "-t", n}).exit_code, 0);
    EXPECT_EQ(slurp(path("out.gguf")), one) << n << " threads";
  }
  expect_error(run({in, path("out.gguf"), "Q8_0", "--report", path("none/r.json")}), 1,
               "none/r.json: cannot write the report");
  const std::string before = slurp(in);
  expect_error(run({in, path("out.gguf"), "Q8_0", "--report", in}), 2, "would replace '" + in);
  expect_error(run({in, path("new.gguf"), "Q8_0", "--report", path("new.gguf")}), 2,
               "new.gguf: would replace");
  EXPECT_TRUE(slurp(in) == before);
  EXPECT_TRUE(slurp(path("out.gguf")) == one);
}

TEST_F(Quantize, ReportReplacesNoFileOfTheWork) {
  const auto n = gguf::write_split(*open(input()), path("s"), {.max_tensors = 4});
  ASSERT_TRUE(n.ok() && *n > 2);
  const auto shard = [&](const std::string& name, int64_t i) {
    return gguf::split_path(path(name), i, *n);
  };
  quantize::Imatrix importance;
  importance.chunk_tok = 1;
  ASSERT_TRUE(
      importance
          .add("blk.0.attn_q.weight",
               {.n_k = 256, .sum_sq = std::vector<float>(256, 1.0f), .n_tok = {1}, .mean_sq = {}})
          .ok());
  ASSERT_TRUE(importance.write(path("i.gguf")).ok());
  fs::create_symlink(shard("s", 1), path("link"));
  fs::create_hard_link(path("i.gguf"), path("hard"));
  const auto before = std::pair(slurp(shard("s", 1)), slurp(path("i.gguf")));
  const int64_t files = n_files();
  const auto refuse = [&](const std::string& report) {
    expect_error(run({shard("s", 0), path("o.gguf"), "Q4_0", "--keep-split", "--imatrix",
                      path("i.gguf"), "--report", report}),
                 2, "--report " + report + ": would replace '");
  };
  for (int64_t i = 0; i < *n; ++i) refuse(shard("s", i));
  for (const char* name : {"i.gguf", "link", "hard", "o.gguf"}) refuse(path(name));
  refuse((folder_ / "." / "i.gguf").string());
  for (int64_t i = 0; i < *n; ++i) refuse(shard("o", i));  // of the output, not there yet
  EXPECT_TRUE(std::pair(slurp(shard("s", 1)), slurp(path("i.gguf"))) == before);
  EXPECT_EQ(n_files(), files);
  EXPECT_EQ(run({shard("s", 0), path("o.gguf"), "Q4_0", "--imatrix", path("i.gguf"), "--report",
                 path("r.json")})
                .exit_code,
            0);
}

TEST_F(Quantize, EveryTypeFromEveryFloatTypeCanBeReadBack) {
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::string in = input(from);
    for (const char* type : kWrittenTypes) {
      const Outcome r = run({in, path("out.gguf"), type});
      ASSERT_EQ(r.exit_code, 0) << type << ": " << r.err;
      ASSERT_NE(open(path("out.gguf")), nullptr) << type;
    }
  }
}

}  // namespace
}  // namespace infer::test
