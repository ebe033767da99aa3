#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_model.h"

/// infer-cli and perplexity with -ngl as a person runs them, on an emulated GPU: what they say, and
/// which options go together.
namespace infer::cuda::test {
namespace {

using infer::test::must;
using infer::test::Outcome;
using infer::test::tiny_model;
using ::testing::HasSubstr;
using ::testing::Not;

/// Heads that kernels take.
constexpr infer::test::TinyShape kShape{
    .n_embd = 64, .n_head = 2, .n_kv_head = 1, .head_dim = 64, .n_ff = 96, .sigma = 0.1f};

class CudaTools : public infer::test::TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    must(tiny_model("llama", kShape).write(path("tiny.gguf")));
  }
  /// On a machine of tools_machine.cpp.
  Outcome complete_on(const std::string& machine, std::vector<std::string> more) const {
    std::vector<std::string> args{"-m", path("tiny.gguf"), "-c", "64", "-t", "1", "-p", "the", "-n",
                                  "2"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program(INFER_CLI_PROGRAM, args, "INFER_EMULATED='" + machine + "'", "</dev/null");
  }
  Outcome run(std::vector<std::string> more) const {
    std::vector<std::string> args{"-m", path("tiny.gguf"), "-c", "64", "-b", "16", "-t", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program(INFER_CLI_PROGRAM, args, "", "</dev/null");
  }
  Outcome complete(std::vector<std::string> more) const {
    const std::vector<std::string> args{"-p", "the the", "-n", "4", "--temp", "0", "--ignore-eos"};
    more.insert(more.begin(), args.begin(), args.end());
    return run(more);
  }
  nlohmann::json complete_json(std::vector<std::string> more) const {
    more.emplace_back("--json");
    const Outcome r = complete(std::move(more));
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return nlohmann::json::parse(r.out, nullptr, false);
  }
  static void expect_error(const Outcome& r, int exit_code, const std::string& line) {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, HasSubstr(line));
    EXPECT_EQ(r.err.find("error: "), r.err.rfind("error: ")) << r.err;
  }
};

TEST_F(CudaTools, SaysWhatGoesWhere) {
  const Outcome some = complete({"-ngl", "1"});
  EXPECT_EQ(some.exit_code, 0) << some.err;
  EXPECT_THAT(some.err, HasSubstr("cpu: input, layer 0; output | MiB: weights "));
  EXPECT_THAT(some.err, HasSubstr("cuda:0: layer 1 | MiB: weights "));
  EXPECT_THAT(some.err, HasSubstr(" | cuda:0 (layer 1): CPU emulating sm_80"));
  const Outcome all = complete({});
  EXPECT_THAT(all.err, HasSubstr("cuda:0: input, layers 0-1, output | MiB: weights "));
  EXPECT_THAT(all.err, Not(HasSubstr("warning")));
  for (const std::vector<std::string>& off :
       {std::vector<std::string>{"-ngl", "0"}, {"--device", "none"}}) {
    const Outcome r = complete(off);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_THAT(r.err, Not(HasSubstr("cuda")));
  }
  expect_error(complete({"--device", "cuda:1"}), 2, "error: no device cuda:1: there is 1\n");
}

TEST_F(CudaTools, WithoutAGpuOneLineSaysWhy) {
  const std::vector<std::pair<std::string, std::string>> machines = {
      {"no driver", "no NVIDIA driver"},
      {"no device", "no CUDA device"},
      {"old", "cuda:0 (CPU emulating sm_70, sm_70, 16.0 GiB) is older than sm_75"}};
  for (const auto& [machine, why] : machines) {
    const Outcome asked = complete_on(machine, {"-ngl", "99"});
    EXPECT_EQ(asked.exit_code, 0) << asked.err;
    EXPECT_THAT(asked.err, ::testing::StartsWith("infer-cli: warning: -ngl 99: no GPU (" + why +
                                                 "); everything runs on the CPU\ntiny, llama"));
    const Outcome not_asked = complete_on(machine, {});
    EXPECT_EQ(not_asked.exit_code, 0) << not_asked.err;
    EXPECT_THAT(not_asked.err, HasSubstr("no GPU (" + why + ")"));
    EXPECT_THAT(not_asked.err, HasSubstr("everything runs on the CPU\ntiny, llama"));
    // One that was named has to be there.
    const Outcome named = complete_on(machine, {"--device", "cuda:0"});
    EXPECT_NE(named.exit_code, 0);
    EXPECT_EQ(named.out, "");
    EXPECT_THAT(named.err, ::testing::StartsWith("infer-cli: error: "));
    EXPECT_THAT(named.err, HasSubstr("cuda:0"));
    EXPECT_THAT(named.err, HasSubstr(why));
    EXPECT_EQ(std::ranges::count(named.err, '\n'), 1) << named.err;
  }
  const Outcome little = complete_on("little memory", {"-ngl", "2"});
  expect_error(little, 1, "MiB are needed");
  EXPECT_THAT(little.err,
              HasSubstr(": 2 of 2 layers on GPUs are too many; -ngl auto takes as many as fit\n"));
  const Outcome fits = complete_on("little memory", {});
  EXPECT_EQ(fits.exit_code, 0) << fits.err;
  EXPECT_THAT(fits.err, ::testing::StartsWith("cuda:0: 0.0 MiB free: too little for a layer, "
                                              "everything runs on the CPU\ntiny, llama"));
}

TEST_F(CudaTools, OptionsGoTogether) {
  const nlohmann::json two =
      complete_json({"-ngl", "99", "-np", "2", "--logprobs", "3", "--prompt-logprobs", "2"});
  ASSERT_TRUE(two.is_object());
  const Outcome lines = complete({"-ngl", "2", "--repeat-penalty", "1.3", "-l", "5-inf"});
  EXPECT_EQ(lines.exit_code, 0) << lines.err;
  // What a GPU left in its cache serves the CPU, and the other way round.
  const std::string file = path("session");
  for (const char* first : {"0", "all"}) {
    std::filesystem::remove(file);
    complete_json({"-ngl", first, "--prompt-cache", file});
    const nlohmann::json again =
        complete_json({"-ngl", first == std::string("0") ? "all" : "0", "--prompt-cache", file});
    EXPECT_GT(again.at("timings").at("cached_tok").get<int>(), 0) << again;
  }
}

TEST_F(CudaTools, WhatTheGpuRefusesIsOneLine) {
  must(make_lora(tiny_model("llama", kShape), {.rank = 2}).write(path("lora.gguf")));
  const std::string rest = ": 0 of 2 layers on GPUs, the rest on the CPU\n";
  const Outcome lora = complete({"-ngl", "99", "--lora", path("lora.gguf")});
  EXPECT_EQ(lora.exit_code, 0) << lora.err;
  EXPECT_THAT(lora.err, HasSubstr("cuda:0: cannot compute op linear_group 'blk.0.attn_"));
  EXPECT_THAT(lora.err, HasSubstr("' with a LoRA adapter" + rest));
  const Outcome precise = complete({"-ngl", "99", "--precise"});
  EXPECT_EQ(precise.exit_code, 0) << precise.err;
  EXPECT_THAT(precise.err, HasSubstr("' with K/V of type f32/f32 and heads of 64" + rest));
}

/// Placement and batch are part of what a run on a GPU is.
TEST_F(CudaTools, ARunGoesOnWhereItWas) {
  write("tasks.jsonl",
        R"({"subject": "a", "question": "the", "choices": ["the", "e e"], "answer": 0})"
        "\n"
        R"({"subject": "a", "question": "e e", "choices": ["th", "the a"], "answer": 1})"
        "\n");
  const auto tasks = [&](std::vector<std::string> more) {
    std::vector<std::string> args{"-m",
                                  path("tiny.gguf"),
                                  "--multiple-choice",
                                  "-c",
                                  "64",
                                  "-t",
                                  "1",
                                  "-bf",
                                  path("tasks.jsonl"),
                                  "--resume",
                                  path("run.jsonl")};
    args.insert(args.end(), more.begin(), more.end());
    return run_program(PERPLEXITY_PROGRAM, args, "", "</dev/null");
  };
  const Outcome first = tasks({"-ngl", "1", "-b", "16", "-np", "4"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const std::string whole = infer::test::slurp(path("run.jsonl"));
  EXPECT_THAT(whole, HasSubstr("[3,5)"));
  EXPECT_THAT(whole, HasSubstr(R"("gpus":["CPU emulating sm_80)"));
  const std::string other = "run.jsonl: is of another run: ";
  expect_error(tasks({"-ngl", "2", "-b", "16", "-np", "4"}), 2, other + "isa ");
  expect_error(tasks({"-ngl", "0", "-b", "16", "-np", "4"}), 2, other + "isa ");
  expect_error(tasks({"-ngl", "1", "-b", "32", "-np", "4"}), 2,
               other + "n_batch 16 instead of 32\n");
  expect_error(tasks({"-ngl", "1", "-b", "16", "-np", "5"}), 2,
               other + "n_parallel 4 instead of 5\n");
  const Outcome again = tasks({"-ngl", "1", "-b", "16", "-np", "4"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(infer::test::slurp(path("run.jsonl")), whole);
}

}  // namespace
}  // namespace infer::cuda::test
