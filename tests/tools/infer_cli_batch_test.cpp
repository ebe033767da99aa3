#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/model_fixture.h"
#include "tests/support/stories260k.h"
#include "tests/support/temp_folder.h"
#include "tests/support/terminal.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// infer-cli --batch and --parallel as a person runs them.
namespace infer::test {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using testing::HasSubstr;

using Args = std::vector<std::string>;

Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<json> json_lines(const std::string& text) {
  std::vector<json> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    out.push_back(json::parse(line, nullptr, false));
    EXPECT_TRUE(out.back().is_object()) << line;
  }
  return out;
}

class InferCliBatch : public TempFolder {
 protected:
  Outcome run(const Args& args, const std::string& before = "",
              const std::string& after = "</dev/null") const {
    return run_program(INFER_CLI_PROGRAM, args, before, after);
  }
  std::string tiny() const {
    must(tiny_model("llama").write(path("tiny.gguf")));
    return path("tiny.gguf");
  }
  /// stories260K with room for long prompts; what it says beyond its 512 tokens is of no interest.
  std::string stories() const {
    GgufImage image = must(convert_stories260k(shared_dir() / "data/models/stories260K"));
    image.set("llama.context_length", uint32_t{8192});
    must(image.write(path("stories.gguf")));
    return path("stories.gguf");
  }
  /// The shared prompts with at most so many bytes of text and tokens of answer.
  std::vector<json> prompts(size_t most_bytes, int most_tokens) const {
    std::vector<json> out = json_lines(slurp(shared_dir() / "data/prompts/prompts.jsonl"));
    for (json& p : out) {
      auto text = p["prompt"].get<std::string>();
      size_t n = std::min(most_bytes, text.size());
      while (n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) --n;
      p["prompt"] = text.substr(0, n);
      p["max_tokens"] = std::min(most_tokens, p["max_tokens"].get<int>());
    }
    return out;
  }
  std::string write_lines(const std::string& name, const std::vector<json>& lines) const {
    std::string text;
    for (const json& line : lines) text += line.dump() + "\n";
    return write(name, text);
  }
  /// The results without timings.
  std::vector<json> answers(const Args& args) const {
    const Outcome r = run(args + Args{"--out", path("out.jsonl")});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(r.out, "");
    std::vector<json> out = json_lines(slurp(path("out.jsonl")));
    for (json& j : out) j.erase("timings");
    return out;
  }
  void expect_same_for_all_schedules(const std::string& model, const std::string& batch,
                                     const Args& flags, const std::vector<json>& asked) const;
};

TEST_F(InferCliBatch, AnswersInOrderAndReportsBadLines) {
  const std::string batch = write("in.jsonl",
                                  R"({"id":"a","prompt":"a the","max_tokens":3}
{"id": "b", "prompt": "a", "max_tokens": 1, "category": "x"}
not json
[1, 2]
{"id":"no prompt"}
{"id":"two","prompt":"a","prompt_ids":[1]}
{"id":"bad key","prompt":"a","temperature":"hot"}
{"id":"nan","prompt":"a","top_p":-1}
{"id":"big","prompt":"a","max_tokens":18446744073709551615}
{"id":"ids","prompt_ids":[1,99999]}
{"id":"long","prompt_ids":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25]}

{"prompt_ids":[1,5],"max_tokens":2,"seed":null,"stop":["never",""]}
{"prompt_ids":[1,5],"max_tokens":2,"stop":"never"})");
  const Outcome r =
      run({"-m", tiny(), "--batch", batch, "-c", "24", "--ignore-eos", "--temp", "0"});
  EXPECT_EQ(r.exit_code, 1) << r.err;
  EXPECT_THAT(r.err, HasSubstr("3 done, 10 failed"));
  EXPECT_THAT(r.err, HasSubstr("line 2: unknown key 'category'"));
  const std::vector<json> lines = json_lines(r.out);
  const std::vector<json> ids = {"a",   "b",   3,     4,      "no prompt", "two", "bad key",
                                 "nan", "big", "ids", "long", 13,          14};
  ASSERT_EQ(lines.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(lines[i]["id"], ids[i]);
  EXPECT_EQ(lines[0]["stop_reason"], "length");
  EXPECT_EQ(lines[0]["timings"]["predicted_tok"], 3);
  EXPECT_FALSE(lines[0].contains("ids"));
  const std::vector<std::string> words = {"",           "",      "not JSON",    "object",
                                          "prompt",     "2",     "temperature", "top_p",
                                          "max_tokens", "99999", "24"};
  for (size_t i = 2; i < words.size(); ++i) {
    EXPECT_FALSE(lines[i].contains("text"));
    EXPECT_THAT(lines[i].value("error", ""), HasSubstr(words[i])) << lines[i];
  }
  EXPECT_FALSE(lines[12].contains("error"));
}

TEST_F(InferCliBatch, ALineSaysWhatFlagsSay) {
  const Args base = {"-m", tiny(), "--ignore-eos"};
  const std::string batch = write("in.jsonl", R"({"prompt":"a the","max_tokens":9,"temperature":1.5,
"top_k":7,"top_p":0.9,"min_p":0.01,"seed":5})");
  std::string text = slurp(batch);
  text.erase(text.find('\n'), 1);
  write("in.jsonl", text + "\n");
  const Outcome line = run(base + Args{"--batch", batch, "--json", "--logprobs", "2"});
  const Outcome flags =
      run(base + Args{"-p", "a the", "-n", "9", "--temp", "1.5", "--top-k", "7", "--top-p", "0.9",
                      "--min-p", "0.01", "-s", "5", "--json", "--logprobs", "2"});
  json got = json_lines(line.out).at(0);
  json want = json_lines(flags.out).at(0);
  for (const char* key : {"text", "ids", "prompt_ids", "stop_reason", "logprobs"})
    EXPECT_EQ(got[key], want[key]) << key;
  // What a line does not say it has from the flags; its seed is theirs + its number - 1.
  const Outcome two = run(base + Args{"--batch", write("two.jsonl", R"({"prompt":"a the"}
{"prompt":"a the"})"),
                                      "-n", "9", "--temp", "1.5", "-s", "7", "--json"});
  const Outcome second =
      run(base + Args{"-p", "a the", "-n", "9", "--temp", "1.5", "-s", "8", "--json"});
  EXPECT_EQ(json_lines(two.out).at(1)["ids"], json_lines(second.out).at(0)["ids"]);
  EXPECT_NE(json_lines(two.out).at(0)["ids"], json_lines(second.out).at(0)["ids"]);
}

TEST_F(InferCliBatch, OutputsAppearWholeOrNotAtAll) {
  const std::string batch = write("in.jsonl", R"({"prompt":"a","max_tokens":1})"
                                              "\n");
  const Args base = {"-m", tiny(), "--batch", batch};
  write("old.jsonl", "old\n");
  EXPECT_EQ(run(base + Args{"--out", path("old.jsonl")}).exit_code, 0);
  EXPECT_EQ(json_lines(slurp(path("old.jsonl"))).size(), 1u);
  EXPECT_EQ(run({"-m", tiny(), "--batch", "-"}, "", "<" + batch).exit_code, 0);

  const int64_t n = n_files();
  const Outcome none = run({"-m", tiny(), "--batch", path("none.jsonl"), "--out", path("x.jsonl")});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("none.jsonl"));
  const Outcome folder = run(base + Args{"--out", path("no/such/folder.jsonl")});
  EXPECT_EQ(folder.exit_code, 1);
  EXPECT_THAT(folder.err, HasSubstr("no/such/folder.jsonl"));
  EXPECT_EQ(n_files(), n) << "something was left behind";
  EXPECT_EQ(run(base + Args{"-p", "a"}).exit_code, 2);
  EXPECT_EQ(run(base + Args{"--out", ""}).exit_code, 2);
  EXPECT_EQ(run({"-m", tiny(), "-p", "a", "--out", path("x")}).exit_code, 2);
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full is not there";
  for (const Outcome& full :
       {run(base, "", "</dev/null >/dev/full"), run(base + Args{"--out", "/dev/full"})}) {
    EXPECT_EQ(full.exit_code, 1) << full.err;
    EXPECT_THAT(full.err, HasSubstr("infer-cli: error: "));
  }
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST_F(InferCliBatch, SamplesOfOnePromptAreThoseOfTheirSeeds) {
  const Args base = {"-m", tiny(), "-p", "a the", "-n", "6", "--temp", "1.5", "--ignore-eos"};
  const Outcome all = run(base + Args{"-s", "3", "-np", "3", "--json"});
  ASSERT_EQ(all.exit_code, 0) << all.err;
  const json samples = json_lines(all.out).at(0)["samples"];
  ASSERT_EQ(samples.size(), 3u);
  std::string text;
  for (size_t i = 0; i < 3; ++i) {
    const Outcome one = run(base + Args{"-s", std::to_string(3 + i), "--json"});
    const json want = json_lines(one.out).at(0);
    EXPECT_EQ(samples[i]["ids"], want["ids"]);
    EXPECT_EQ(samples[i]["text"], want["text"]);
    text += "----- " + std::to_string(i + 1) + " of 3 -----\n" + want["text"].get<std::string>();
    if (!text.ends_with('\n')) text += '\n';
  }
  EXPECT_EQ(run(base + Args{"-s", "3", "--parallel", "3"}).out, text);
  // One prompt was computed, not three.
  EXPECT_EQ(json_lines(all.out).at(0)["timings"]["prompt_tok"],
            json_lines(run(base + Args{"--json"}).out).at(0)["timings"]["prompt_tok"]);
  const std::string batch = write("in.jsonl", R"({"prompt":"a the","max_tokens":6})"
                                              "\n");
  const Outcome in_batch = run({"-m", tiny(), "--batch", batch, "-s", "3", "-np", "3", "--json",
                                "--temp", "1.5", "--ignore-eos"});
  EXPECT_EQ(json_lines(in_batch.out).at(0)["samples"], samples);
}

void InferCliBatch::expect_same_for_all_schedules(const std::string& model,
                                                  const std::string& batch, const Args& flags,
                                                  const std::vector<json>& asked) const {
  const Args base = Args{"-m", model, "--batch", batch, "-s", "11"} + flags;
  const std::vector<json> want = answers(base + Args{"--max-seqs", "1", "--no-prefix-cache"});
  ASSERT_EQ(want.size(), asked.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(want[i]["id"], asked[i]["id"]);
    EXPECT_TRUE(want[i].contains("text")) << want[i];
  }
  for (const char* n : {"1", "3", "8"}) {
    EXPECT_EQ(answers(base + Args{"--max-seqs", n}), want) << n;
    EXPECT_EQ(answers(base + Args{"--max-seqs", n, "--no-prefix-cache"}), want) << n;
  }
}

TEST_F(InferCliBatch, TheSharedPromptsAreAnsweredTheSameForAllSchedules) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const std::vector<json> asked = prompts(scaled(300, 100), 8);  // whole ones: see SlowDemoModel
  ASSERT_EQ(asked.size(), 40u);
  const std::string batch = write_lines("in.jsonl", asked);
  const std::string model = stories();
  for (const char* temp : {"0", "1"})
    expect_same_for_all_schedules(model, batch, {"--temp", temp, "--ignore-eos"}, asked);
  // Two of them alone, without a batch.
  const std::vector<json> all =
      answers({"-m", model, "--batch", batch, "--temp", "0", "--ignore-eos"});
  for (const size_t i : {size_t{0}, size_t{28}}) {
    const Outcome one =
        run({"-m", model, "-f", write("prompt.txt", asked[i]["prompt"].get<std::string>()), "-n",
             std::to_string(asked[i]["max_tokens"].get<int>()), "--temp", "0", "--ignore-eos"});
    EXPECT_EQ(one.out, all[i]["text"].get<std::string>());
  }
  // The prompts about SQL begin alike.
  const Outcome cached = run({"-m", model, "--batch", batch, "-n", "1", "--max-seqs", "1"});
  EXPECT_THAT(cached.err, testing::Not(HasSubstr("(0 cached)")));
}

/// All 40 at full length with the demo model.
TEST_F(InferCliBatch, DISABLED_SlowDemoModel) {
  const auto model = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!has_shared() || !fs::exists(model)) GTEST_SKIP() << "no shared data or demo model";
  const std::vector<json> asked = prompts(size_t{1} << 20, 24);
  const std::string batch = write_lines("in.jsonl", asked);
  for (const char* temp : {"0", "0.8"})
    expect_same_for_all_schedules(model.string(), batch, {"--temp", temp}, asked);
}

TEST_F(InferCliBatch, ADemoModelToo) {
  const auto model = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!has_shared() || !fs::exists(model)) GTEST_SKIP() << "no shared data or demo model";
  std::vector<json> asked = prompts(160, 4);
  asked.resize(scaled(18, 6));
  const std::string batch = write_lines("in.jsonl", asked);
  const Args base = {"-m", model.string(), "--batch", batch, "-s", "1", "-c", "512"};
  const std::vector<json> want = answers(base + Args{"--max-seqs", "1", "--no-prefix-cache"});
  ASSERT_EQ(want.size(), asked.size());
  EXPECT_EQ(answers(base + Args{"--max-seqs", "8"}), want);
}

TEST_F(InferCliBatch, InterruptKeepsWhatIsDone) {
  const auto model = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  const std::string batch = write("in.jsonl", R"({"id":"short","prompt":"Once","max_tokens":1}
{"id":"endless","prompt":"Once upon a time","ignore_eos":true}
{"id":"never","prompt":"Once upon a time"})");
  Terminal t(INFER_CLI_PROGRAM, {"-m", model.string(), "--batch", batch, "--max-seqs", "1", "--out",
                                 path("out.jsonl")});
  ASSERT_TRUE(t.wait_for("1 done")) << t.screen();
  t.type("\x03");
  EXPECT_EQ(t.wait_exit(), 130) << t.screen();
  EXPECT_THAT(t.screen(), HasSubstr("1 done, 0 failed, interrupted"));
  const std::vector<json> lines = json_lines(slurp(path("out.jsonl")));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["id"], "short");
}

}  // namespace
}  // namespace infer::test
