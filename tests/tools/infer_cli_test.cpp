#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/json_file.h"
#include "tests/support/model_fixture.h"
#include "tests/support/stories260k.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// The program infer-cli as a person runs it: exit codes, text on stdout, everything else on
/// stderr.
namespace infer::test {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class InferCli : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    must(tiny_model("llama").write(tiny()));
  }

  std::string tiny() const { return path("tiny.gguf"); }
  /// Runs `before` infer-cli ARGS `after` in a shell.
  Outcome shell(const std::string& before, const std::vector<std::string>& args,
                const std::string& after = "") const {
    return run_program(INFER_CLI_PROGRAM, args, before, after);
  }
  Outcome run(const std::vector<std::string>& args) const { return shell("", args, "</dev/null"); }
  nlohmann::json run_json(std::vector<std::string> args) const {
    args.emplace_back("--json");
    const Outcome r = run(args);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;
    return nlohmann::json::parse(r.out, nullptr, false);
  }
  static void expect_error(const Outcome& r, int exit_code, const std::string& word) {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    const size_t line = r.err.rfind("infer-cli: error: ");
    ASSERT_NE(line, std::string::npos) << r.err;
    EXPECT_THAT(r.err.substr(line), HasSubstr(word));
    EXPECT_EQ(r.err.find('\n', line), r.err.size() - 1) << r.err;
  }
};

TEST_F(InferCli, HelpAndUsage) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* flag : {"--model",
                           "--prompt",
                           "--file",
                           "--prompt-ids",
                           "--ctx-size",
                           "--threads",
                           "--seed",
                           "--temp",
                           "--top-k",
                           "--top-p",
                           "--min-p",
                           "--stop",
                           "--ignore-eos",
                           "--precise",
                           "--json",
                           "--logprobs",
                           "--prompt-logprobs",
                           "-no-cnv",
                           "--verbose",
                           "--no-special",
                           "--isa",
                           "--dump-plan",
                           "--no-mmap",
                           "-cnv",
                           "--system",
                           "--chat-template",
                           "--print-prompt",
                           "--single-turn",
                           "--batch",
                           "--max-seqs",
                           "--out",
                           "--parallel"}) {
    EXPECT_THAT(help.out, HasSubstr(flag));
  }
  expect_error(run({"--no-such-flag"}), 2, "--no-such-flag");
  expect_error(run({"-m", tiny(), "-p", "a", "-n", "many"}), 2, "many");
  expect_error(run({"-m", tiny(), "-p", "a", "--temp", "nan"}), 2, "temp");
  expect_error(run({"-m", tiny(), "-p", "a", "--isa", "sse9"}), 2, "sse9");
  expect_error(run({"-m", tiny(), "-p", "a", "--cache-type-k", "q5_1"}), 2,
               "--cache-type-k = q5_1: known are f16, bf16, f32, q8_0, q4_0");
  expect_error(run({"-m", tiny(), "-p", "a", "--cache-type-v", "q4_0"}), 1,
               "--cache-type-v q4_0: needs heads of a multiple of 32");
  // f32 K and V come with --precise, unless they are asked for otherwise.
  EXPECT_THAT(run({"-m", tiny(), "-p", "a", "-n", "1"}).err, HasSubstr("(f16/f16)"));
  EXPECT_THAT(run({"-m", tiny(), "-p", "a", "-n", "1", "--precise"}).err, HasSubstr("(f32/f32)"));
  EXPECT_THAT(run({"-m", tiny(), "-p", "a", "-n", "1", "--precise", "--cache-type-k", "f16"}).err,
              HasSubstr("(f16/f32)"));
  expect_error(run({"-m", tiny(), "-p", "a", "--logprobs", "3"}), 2, "--json");
  expect_error(run({"-m", tiny(), "-p", "a", "-f", "b"}), 2, "");
}

/// Where there is no GPU: a line for who asked for one, an error for who named one.
TEST_F(InferCli, Devices) {
  const Outcome devices = run({"--list-devices"});
  EXPECT_EQ(devices.exit_code, 0) << devices.err;
  EXPECT_THAT(devices.out, HasSubstr("cpu: "));
  expect_error(run({"-m", tiny(), "-p", "a", "-ngl", "many"}), 2, "-ngl many: a number of layers");
  expect_error(run({"-m", tiny(), "-p", "a", "-ts", "3,x"}), 2, "--tensor-split 3,x: 'x'");
  expect_error(run({"-m", tiny(), "-p", "a", "--device", "tpu:0"}), 2, "device 'tpu:0'");
  const std::vector<std::string> rest{"-m", tiny(), "-p", "a the", "-n", "4", "--temp", "0"};
  const auto with = [&](std::vector<std::string> args) {
    args.insert(args.end(), rest.begin(), rest.end());
    const Outcome r = run(args);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r;
  };
  const Outcome none = with({"--device", "none"});
  EXPECT_THAT(none.err, HasSubstr(" | cpu: "));
  EXPECT_THAT(none.err, Not(HasSubstr("warning")));
  EXPECT_THAT(with({"-ngl", "7", "--device", "none"}).err,
              HasSubstr("infer-cli: warning: -ngl 7: --device none; everything runs on the CPU\n"));
  if (devices.out.find("\nno GPU: ") == std::string::npos) GTEST_SKIP() << "there is a GPU";
  const Outcome asked = with({"-ngl", "7"});
  EXPECT_EQ(asked.out, none.out);
  EXPECT_THAT(asked.err, HasSubstr("infer-cli: warning: -ngl 7: no GPU ("));
  EXPECT_THAT(with({}).err, Not(HasSubstr("warning")));
  EXPECT_EQ(with({}).err.starts_with("no GPU ("),
            devices.out.find("no GPU: built without CUDA\n") == std::string::npos);
  expect_error(run({"-m", tiny(), "-p", "a", "--device", "cuda:0"}), 2, "device 'cuda:0': no GPU");
  expect_error(run({"-m", tiny(), "-p", "a", "--cache-type-k", "bf16"}), 1, "K/V of type bf16/f16");
}

TEST_F(InferCli, ModelsThatCannotBeRead) {
  expect_error(run({"-m", path("none.gguf"), "-p", "a"}), 1, "none.gguf");
  expect_error(
      run({"-m", write("text.gguf", "not a model, but long enough for a header"), "-p", "a"}), 1,
      "text.gguf");
  expect_error(run({"-m", write("empty.gguf", ""), "-p", "a"}), 1, "empty.gguf");
  GgufImage unknown = tiny_model("llama");
  unknown.set("general.architecture", std::string("lama"));
  must(unknown.write(path("unknown.gguf")));
  expect_error(run({"-m", path("unknown.gguf"), "-p", "a"}), 1, "lama");
  const Outcome none = shell("INFER_MODELS=" + path("nothing"), {"-p", "a"}, "</dev/null");
  expect_error(none, 2, "./demo");
}

TEST_F(InferCli, DefaultModelIsTheDemos) {
  fs::create_directory(folder_ / "models");
  fs::copy_file(tiny(), folder_ / "models/smollm2-135m-instruct-q4_1.gguf");
  const Outcome r = shell("INFER_MODELS=" + path("models"), {"-p", "a", "-n", "2"}, "</dev/null");
  EXPECT_EQ(r.exit_code, 0) << r.err;
}

TEST_F(InferCli, PromptsFromEverywhereGiveTheSame) {
  const std::vector<std::string> rest = {"-m", tiny(), "-n", "8", "--temp", "0", "--ignore-eos"};
  const auto with = [&](std::vector<std::string> args) {
    args.insert(args.end(), rest.begin(), rest.end());
    return args;
  };
  const Outcome p = run(with({"-p", "a the"}));
  EXPECT_EQ(p.exit_code, 0) << p.err;
  EXPECT_EQ(run(with({"-f", write("prompt.txt", "a the")})).out, p.out);
  EXPECT_EQ(shell("printf %s 'a the' |", rest).out, p.out);
  EXPECT_EQ(shell("printf %s 'a the' |", with({"-f", "-"})).out, p.out);
  const auto j = run_json(with({"-p", "a the"}));
  EXPECT_EQ(j["text"].get<std::string>(), p.out);
  std::string ids;
  for (const auto& id : j["prompt_ids"])
    ids += (ids.empty() ? "" : ",") + std::to_string(id.get<int>());
  EXPECT_EQ(run(with({"--prompt-ids", ids})).out, p.out);
  expect_error(run(with({"--prompt-ids", "1,x"})), 2, "--prompt-ids");
  expect_error(run(with({"--prompt-ids", "999999"})), 2, "999999");
  expect_error(run(with({"-f", path("none.txt")})), 1, "none.txt");
}

TEST_F(InferCli, JsonHoldsWhatItPromises) {
  const auto j = run_json({"-m", tiny(), "-p", "a the", "-n", "5", "--temp", "0", "--ignore-eos",
                           "--logprobs", "4", "--prompt-logprobs", "3"});
  ASSERT_TRUE(j.is_object());
  EXPECT_EQ(j["stop_reason"], "length");
  ASSERT_EQ(j["ids"].size(), 5u);
  ASSERT_EQ(j["logprobs"].size(), 5u);
  ASSERT_EQ(j["prompt_logprobs"].size(), j["prompt_ids"].size());
  EXPECT_TRUE(j["timings"].is_object());
  const auto check_row = [](const nlohmann::json& row, size_t n) {
    ASSERT_EQ(row.size(), n);
    double sum = 0.0;
    for (size_t i = 0; i < n; ++i) {
      sum += std::exp(row[i]["logprob"].get<double>());
      if (i == 0) continue;
      EXPECT_LE(row[i]["logprob"].get<double>(), row[i - 1]["logprob"].get<double>());
    }
    EXPECT_TRUE(sum > 0.0 && sum <= 1.0 + 1e-5) << sum;
  };
  for (size_t i = 0; i < 5; ++i) {
    check_row(j["logprobs"][i], 4);
    EXPECT_EQ(j["logprobs"][i][0]["id"], j["ids"][i]) << "greedy takes the best";
  }
  for (const auto& row : j["prompt_logprobs"]) check_row(row, 3);
  // The last prompt position predicts the first generated token.
  EXPECT_EQ(j["prompt_logprobs"].back()[0], j["logprobs"][0][0]);
  EXPECT_FALSE(run_json({"-m", tiny(), "-p", "a", "-n", "1"}).contains("logprobs"));
}

TEST_F(InferCli, LimitsEndWithLength) {
  const auto none = run_json({"-m", tiny(), "-p", "a", "-n", "0"});
  EXPECT_EQ(none["text"], "");
  EXPECT_EQ(none["ids"].size(), 0u);
  const auto full = run_json({"-m", tiny(), "-p", "a", "-c", "20", "--ignore-eos"});
  EXPECT_EQ(full["stop_reason"], "length");
  EXPECT_EQ(full["prompt_ids"].size() + full["ids"].size(), 20u);
  expect_error(run({"-m", tiny(), "-p", "a the a the a the a the a the", "-c", "4"}), 2, "4");
}

TEST_F(InferCli, SeedsAndThreadsAndIsa) {
  const auto sample = [&](const std::string& seed, const std::string& threads) {
    return run_json({"-m", tiny(), "-p", "a the", "-n", "12", "-s", seed, "-t", threads, "--temp",
                     "1.5", "--logprobs", "5", "--ignore-eos"});
  };
  const auto a = sample("1", "1");
  EXPECT_EQ(a["ids"], sample("1", "1")["ids"]);
  EXPECT_EQ(a["logprobs"], sample("1", "3")["logprobs"]);
  EXPECT_NE(a["ids"], sample("2", "1")["ids"]);
  for (const std::string& isa : isa_levels()) {
    EXPECT_EQ(run({"-m", tiny(), "-p", "a", "-n", "2", "--isa", isa}).exit_code, 0);
  }
  const Outcome many = run({"-m", tiny(), "-p", "a", "-n", "1", "-t", "1000"});
  EXPECT_EQ(many.exit_code, 0);
  EXPECT_THAT(many.err, HasSubstr("warning"));
}

TEST_F(InferCli, ModesAgreeAndPlansShow) {
  const std::vector<std::string> base = {"-m", tiny(),   "-p", "a the",        "-n",
                                         "8",  "--temp", "0",  "--ignore-eos", "--precise"};
  const Outcome want = run(base);
  for (const char* flag : {"--unfused", "--no-mmap", "--no-prefix-cache", "-no-cnv", "--verbose"}) {
    std::vector<std::string> args = base;
    args.emplace_back(flag);
    const Outcome got = run(args);
    EXPECT_EQ(got.exit_code, 0) << flag;
    EXPECT_EQ(got.out, want.out) << flag;
  }
  for (const std::string batch : {"1", "3"}) {
    std::vector<std::string> args = base;
    args.insert(args.end(), {"-b", batch, "-tb", "2"});
    EXPECT_EQ(run(args).out, want.out) << batch;
  }
  const Outcome plan = run({"-m", tiny(), "--dump-plan"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  for (const char* word : {"blk.0", "attention", "cpu", "f32"})
    EXPECT_THAT(plan.out, HasSubstr(word));
}

TEST_F(InferCli, ReportsKeepOutOfTheTextsLines) {
  const std::vector<std::string> args = {"-m", tiny(),   "-p", "a",           "-n",
                                         "3",  "--temp", "0",  "--ignore-eos"};
  const std::string text = run(args).out;
  ASSERT_FALSE(text.ends_with('\n'));
  // Both to one file: the report begins a line.
  shell("", args, "</dev/null >" + path("both") + " 2>&1");
  EXPECT_THAT(slurp(path("both")), HasSubstr(text + "\nprompt: "));
}

TEST_F(InferCli, FullDiskIsAnError) {
  const Outcome r =
      shell("", {"-m", tiny(), "-p", "a", "-n", "3", "--ignore-eos"}, "</dev/null >/dev/full");
  EXPECT_EQ(r.exit_code, 1) << r.err;
  EXPECT_THAT(r.err, HasSubstr("infer-cli: error: "));
}

TEST_F(InferCli, TextIsTheReferencesAndStopsAtStrings) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const auto folder = shared_dir() / "data/models/stories260K";
  must(must(convert_stories260k(folder)).write(path("stories.gguf")));
  const auto cases = must(read_json(folder / "greedy.json"));
  const std::string want = cases.at(1)["greedy_text"].get<std::string>();
  const std::vector<std::string> base = {
      "-m", path("stories.gguf"), "-p", "Once upon a time", "-n", "128", "--temp",
      "0",  "--precise"};
  const Outcome r = run(base);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(r.out, want);
  EXPECT_THAT(r.err, HasSubstr("stories260K"));

  std::vector<std::string> stopping = base;
  stopping.insert(stopping.end(), {"--stop", "outside", "--stop", "never"});
  const auto j = run_json(stopping);
  EXPECT_EQ(j["stop_reason"], "stop");
  EXPECT_EQ(j["text"], want.substr(0, want.find("outside")));
}

TEST_F(InferCli, JsonStaysJsonWhereAStopCutsACharacter) {
  // Only byte C3 is said, which never becomes a character: U+FFFD, or EF BF BD.
  const auto j = run_json({"-m", tiny(), "-p", "a", "-n", "4", "-l",
                           std::to_string(3 + 0xC3) + "+1000", "--stop", "\xbf"});
  EXPECT_EQ(j["stop_reason"], "stop");
  EXPECT_EQ(j["text"], "\xef\xbf\xbd");
}

TEST_F(InferCli, InterruptEndsWithWhatThereIs) {
  const auto model = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  const Outcome r = shell(
      "timeout --preserve-status -s INT 5",
      {"-m", model.string(), "-p", "Once upon a time", "-n", "4000", "-c", "0", "--ignore-eos"},
      "</dev/null");
  EXPECT_EQ(r.exit_code, 130) << r.err;
}

}  // namespace
}  // namespace infer::test
