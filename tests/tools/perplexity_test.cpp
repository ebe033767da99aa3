#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/model_fixture.h"
#include "tests/support/stories260k.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_env.h"

/// The program perplexity on stories260K: reports, files, resumption, wrong input.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class Perplexity : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    model_ = path("model.gguf");
    must(must(convert_stories260k(shared_dir() / "data/models/stories260K")).write(model_));
    std::string text;
    for (int i = 0; i < 400; ++i) text += "Once upon a time there was a little girl named Lily. ";
    write("text.txt", text);
    write(
        "tasks.jsonl",
        R"({"subject": "animals", "question": "The cat said", "choices": ["meow", "woof woof", "moo"], "answer": 0})"
        "\n"
        R"({"subject": "animals", "question": "Once upon", "choices": ["a time", "the tree"], "answer": 0})"
        "\n"
        R"({"subject": "law", "question": "The girl went to the", "choices": ["park", "moon and sun"], "answer": 1})"
        "\n");
  }
  Outcome run(std::vector<std::string> args, const std::string& before = "",
              const std::string& after = "") const {
    return run_program(PERPLEXITY_PROGRAM, args, before, after);
  }
  Outcome run_tasks(std::vector<std::string> more) const {
    std::vector<std::string> args = {"-m", model_, "--multiple-choice", "-bf", path("tasks.jsonl"),
                                     "-t", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return run(std::move(args));
  }
  static void expect_error(const Outcome& r, int code, const std::string& what) {
    EXPECT_EQ(r.exit_code, code) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, HasSubstr("perplexity: error: "));
    EXPECT_THAT(r.err, HasSubstr(what));
  }

  std::string model_;
};

TEST_F(Perplexity, OfAText) {
  const Outcome r =
      run({"-m", model_, "-f", path("text.txt"), "-c", "64", "--chunks", "5", "-t", "1"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, testing::MatchesRegex("Final estimate: PPL = [0-9.]+ \\+/- [0-9.]+\n"));
  EXPECT_THAT(r.err, HasSubstr("[1]"));
  EXPECT_THAT(r.err, HasSubstr(",[5]"));
  const Outcome strided = run({"-m", model_, "-f", path("text.txt"), "-c", "64", "--ppl-stride",
                               "16", "--chunks", "3", "-t", "1", "--json"});
  ASSERT_EQ(strided.exit_code, 0) << strided.err;
  const auto json = nlohmann::json::parse(strided.out);
  EXPECT_EQ(json.at("tokens").get<int>(), 3 * 16);
  EXPECT_GT(json.at("perplexity").get<double>(), 1.0);
}

TEST_F(Perplexity, DivergenceFromAFileIsThatFromTheModel) {
  const std::vector<std::string> text = {"-m", model_, "-c", "64", "-t", "1", "--json"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> args = text;
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  };
  const Outcome saved = with(
      {"-f", path("text.txt"), "--chunks", "4", "--precise", "--kl-divergence-base", path("base")});
  ASSERT_EQ(saved.exit_code, 0) << saved.err;
  const Outcome file = with({"--kl-divergence", "--kl-divergence-base", path("base"), "--precise"});
  ASSERT_EQ(file.exit_code, 0) << file.err;
  const Outcome direct =
      with({"-f", path("text.txt"), "--chunks", "4", "--precise", "--against", model_});
  ASSERT_EQ(direct.exit_code, 0) << direct.err;
  EXPECT_EQ(file.out, direct.out);
  const auto json = nlohmann::json::parse(file.out);
  EXPECT_EQ(json.at("tokens").get<int>(), 4 * 31);
  EXPECT_TRUE(std::abs(json.at("kld").at("mean").get<double>()) <= 1e-4);
  EXPECT_EQ(json.at("same_top").get<double>(), 1.0);
  EXPECT_NEAR(json.at("perplexity").get<double>(),
              nlohmann::json::parse(saved.out).at("perplexity").get<double>(), 1e-5);
}

TEST_F(Perplexity, ChoicesAndTheirFiles) {
  const Outcome r = run_tasks({"--jsonl", path("a.jsonl"), "--svg", path("a.svg")});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("Final result: "));
  EXPECT_THAT(r.out, HasSubstr("Random chance: 42.8571 +/- "));
  EXPECT_THAT(r.out, HasSubstr("animals "));
  EXPECT_THAT(slurp(path("a.svg")), StartsWith("<svg "));
  const Outcome one = run_tasks({"--subset", "^law$", "--json"});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  EXPECT_EQ(nlohmann::json::parse(one.out).at("tasks").get<int>(), 1);
  const Outcome letters = run_tasks({"--style", "letters", "--shots", "1", "--dev",
                                     path("tasks.jsonl"), "--jsonl", path("b.jsonl")});
  ASSERT_EQ(letters.exit_code, 0) << letters.err;
  const Outcome compared = run({"compare", path("a.jsonl"), path("b.jsonl")});
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_THAT(compared.out, HasSubstr("3 tasks in both"));
  EXPECT_THAT(compared.out, HasSubstr("McNemar's exact p = "));
}

/// As llama-perplexity counts them.
TEST_F(Perplexity, EachOfSeveralRightAnswersIsRight) {
  const auto right = [&](const std::string& labels) {
    write("several.json", R"({"question": "Once upon a", "single_correct": {"answers": )"
                          R"(["time", "moo moo", "qq zz"], "labels": )" +
                              labels + "}}");
    const Outcome r =
        run({"-m", model_, "--multiple-choice", "-bf", path("several.json"), "-t", "1", "--json"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return nlohmann::json::parse(r.out).at("accuracy").at("value").get<double>();
  };
  EXPECT_EQ(right("[1, 0, 0]") + right("[0, 1, 0]") + right("[0, 0, 1]"), 1.0);
  EXPECT_EQ(right("[1, 1, 1]"), 1.0);
  EXPECT_EQ(right("[1, 1, 0]") + right("[0, 1, 1]") + right("[1, 0, 1]"), 2.0);
}

TEST_F(Perplexity, WinograndeAndHellaswag) {
  write("wg.csv", "0,Lily saw _ and ran to the park.,Tom,Tom,2\n");
  const Outcome gap = run({"-m", model_, "--winogrande", "-f", path("wg.csv"), "-t", "1"});
  ASSERT_EQ(gap.exit_code, 0) << gap.err;
  EXPECT_THAT(gap.out, StartsWith("Final Winogrande score(1 tasks): 100.0000 +/- 0.0000\n"));
  write("hs.txt", "Once upon a\n0\ntime\nmoo moo\nqq zz\nxx yy\n");
  const Outcome ending = run({"-m", model_, "--hellaswag", "-f", path("hs.txt"), "-t", "1"});
  ASSERT_EQ(ending.exit_code, 0) << ending.err;
  EXPECT_THAT(ending.out, StartsWith("1\t100.00000000%\t["));
}

TEST_F(Perplexity, AResumedRunEndsWithTheSameBytes) {
  ASSERT_EQ(run_tasks({"--resume", path("whole.jsonl"), "--jsonl", path("j.jsonl")}).exit_code, 0);
  const std::string whole = slurp(path("whole.jsonl"));
  EXPECT_EQ(whole, slurp(path("j.jsonl")));
  for (size_t n = 0; n < whole.size(); n += 23) {
    write("part.jsonl", whole.substr(0, n));
    const Outcome r = run_tasks({"--resume", path("part.jsonl")});
    ASSERT_EQ(r.exit_code, 0) << n << ": " << r.err;
    EXPECT_EQ(slurp(path("part.jsonl")), whole) << n;
  }
  // What differs is named, and nothing else.
  const std::vector<std::pair<std::vector<std::string>, std::string>> others = {
      {{"--precise"}, "precise false instead of true, kv_types \"f16/f16\" instead of \"f32/f32\""},
      {{"-ctk", "f32"}, "kv_types \"f16/f16\" instead of \"f32/f16\""},
      {{"--isa", "generic"}, "isa \""},
      {{"--rope-freq-base", "5000"}, "model_hash \""},
      {{"--unfused"}, "unfused none instead of true"}};
  for (auto [more, what] : others) {
    more.insert(more.end(), {"--resume", path("part.jsonl")});
    expect_error(run_tasks(more), 2, "part.jsonl: is of another run: " + what);
  }
  EXPECT_EQ(slurp(path("part.jsonl")), whole);
}

TEST_F(Perplexity, Packs) {
  ASSERT_EQ(run({"pack", path("tasks.jsonl"), path("tasks.bin")}).exit_code, 0);
  ASSERT_EQ(run({"pack", path("tasks.bin"), path("back.json")}).exit_code, 0);
  ASSERT_EQ(run({"pack", path("back.json"), path("again.bin")}).exit_code, 0);
  EXPECT_EQ(slurp(path("tasks.bin")), slurp(path("again.bin")));
  const Outcome a = run_tasks({});
  const Outcome b = run({"-m", model_, "--multiple-choice", "-bf", path("tasks.bin"), "-t", "1"});
  EXPECT_EQ(a.out.substr(a.out.find("Final")), b.out);
}

TEST_F(Perplexity, TasksThatAreTooLongAreNamed) {
  const Outcome some = run_tasks({"-c", "8"});
  ASSERT_EQ(some.exit_code, 0) << some.err;
  EXPECT_THAT(some.err, HasSubstr("tasks were skipped, the first: task "));
  expect_error(run_tasks({"-c", "2"}), 2, "all 3 tasks were skipped");
}

TEST_F(Perplexity, WrongInput) {
  const std::string text = path("text.txt");
  expect_error(run({"-m", model_}), 2, "no text");
  expect_error(run({"-m", model_, "-f", path("none")}), 1, "none: ");
  expect_error(run({"-m", model_, "-f", text, "-c", "1000000"}), 2, "needs 2000000");
  expect_error(run({"-m", model_, "-f", text, "--kl-divergence"}), 2, "needs --kl-divergence-base");
  expect_error(run({"-m", model_, "--kl-divergence", "--kl-divergence-base", text}), 1,
               "no '_logits_'");
  expect_error(run({"-m", model_, "--hellaswag", "-f", text, "--style", "letters"}), 2,
               "needs --multiple-choice");
  expect_error(run({"-m", model_, "-f", text, "--kl-divergence-base", text}), 2,
               "would be written over");
  expect_error(run({"-m", model_, "-f", text, "-c", "0"}), 2, "-c 0: ");
  expect_error(run({"-m", model_, "-f", text, "--chunks", "0"}), 2, "--chunks 0: ");
  expect_error(run({"-m", model_, "-f", text, "--against", model_, "--kl-divergence-base", text}),
               2, "one of them");
  const std::vector<std::string> base = {"-m", model_, "--kl-divergence", "--kl-divergence-base",
                                         path("base")};
  for (const char* flag : {"--chunks", "--stride"}) {
    std::vector<std::string> args = base;
    args.insert(args.end(), {flag, flag == std::string("--stride") ? "16" : "0"});
    expect_error(run(args), 2, flag);
  }
  for (const char* flag : {"--jsonl", "--svg", "--svg-with"}) {
    std::vector<std::string> args = {flag, path("none/file")};
    if (flag == std::string("--svg-with")) args.insert(args.end(), {"--svg", path("o.svg")});
    const Outcome r = run_tasks(args);
    expect_error(r, 1, "none/file: ");
    EXPECT_EQ(r.err.find("tok/s"), std::string::npos) << "after the run: " << flag;
  }
  expect_error(run_tasks({"--hellaswag"}), 2, "exclude each other");
  expect_error(run_tasks({"--subset", "["}), 2, "--subset '['");
  expect_error(run_tasks({"--subset", "none"}), 2, "matches no task");
  expect_error(run_tasks({"--shots", "2"}), 2, "--shots");
  expect_error(run({"-m", model_, "--multiple-choice", "-bf", text}), 1, "text.txt: ");
  expect_error(run({"pack", text, path("o.bin")}), 1, "text.txt: ");
  expect_error(run({"compare", text, text}), 1, "text.txt: ");
  EXPECT_FALSE(fs::exists(path("o.bin")));
}

}  // namespace
}  // namespace infer::test
