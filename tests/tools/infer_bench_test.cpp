#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// The program infer-bench as a person or a script runs it: flags, exit codes, what its JSON holds.
/// No test looks at how fast anything was, only that it was measured.
namespace infer::test {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class InferBench : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "infer-bench-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string tiny() const {
    if (!fs::exists(path("tiny.gguf"))) must(tiny_model("llama").write(path("tiny.gguf")));
    return path("tiny.gguf");
  }
  /// Runs infer-bench with arguments as a shell reads them.
  Outcome run(const std::string& args, const std::string& out = "") const {
    const std::string command = "'" INFER_BENCH_PROGRAM "' " + args + " >" +
                                (out.empty() ? path("stdout") : out) + " 2>" + path("stderr") +
                                " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(path("stdout")),
            slurp(path("stderr"))};
  }
  json run_json(const std::string& args) const {
    const Outcome r = run(args + " --json");
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;
    return json::parse(r.out, nullptr, false);
  }
  void expect_error(const std::string& args, int exit_code, const std::string& word) const {
    const Outcome r = run(args);
    EXPECT_EQ(r.exit_code, exit_code) << args << ": " << r.err;
    EXPECT_EQ(r.out, "") << args;
    const size_t line = r.err.rfind("infer-bench: error: ");
    ASSERT_NE(line, std::string::npos) << args << ": " << r.err;
    EXPECT_THAT(r.err.substr(line), HasSubstr(word)) << args;
    EXPECT_EQ(r.err.find('\n', line), r.err.size() - 1) << args << ": " << r.err;
  }

  fs::path folder_;
};

void expect_positive(const json& numbers, size_t n) {
  ASSERT_TRUE(numbers.is_array());
  ASSERT_EQ(numbers.size(), n) << numbers;
  for (const json& v : numbers) EXPECT_GT(v.get<double>(), 0.0) << numbers;
}

TEST_F(InferBench, HelpAndUsage) {
  const Outcome help = run("--help");
  EXPECT_EQ(help.exit_code, 0);
  for (const char* word : {"run", "roofline", "op", "compare"})
    EXPECT_THAT(help.out, HasSubstr(word));
  const Outcome run_help = run("run --help");
  EXPECT_EQ(run_help.exit_code, 0);
  for (const char* flag : {"-m", "-p", "-n", "-d", "-b", "-t", "-r", "--json", "--md", "--isa",
                           "-ub", "-ctk", "--precise", "--profile", "--svg", "--array-mib"})
    EXPECT_THAT(run_help.out, HasSubstr(flag));
  expect_error("", 2, "subcommand");
  expect_error("frob", 2, "");
  expect_error("run --no-such-flag", 2, "--no-such-flag");
  expect_error("run -m " + tiny() + " -p many", 2, "many");
  expect_error("run -m " + tiny() + " -d -1", 2, "-1");
  expect_error("run -m " + tiny() + " -p 0 -n 0", 2, "nothing");
  expect_error("run -m " + tiny() + " -b 3 -ub 2", 2, "3");
  expect_error("run -m " + tiny() + " --json --md", 2, "--md");
  expect_error("run -m " + tiny() + " --isa sse9", 2, "sse9");
  expect_error("run -m " + path("none.gguf"), 1, "none.gguf");
  expect_error("op", 2, "OP");
  expect_error("op frob", 2, "frob");
  expect_error("op linear --type q9", 2, "q9");
  expect_error("op linear --type q4_0 -k 33", 2, "33");
  expect_error("op linear --type iq1_s -k 256", 1, "iq1_s");
  expect_error("op attention --n-head 5 --n-kv-head 2", 2, "5");
  expect_error("op attention -m 9 --n-kv 8", 2, "9");
  expect_error("roofline --isa sse9", 2, "sse9");
  expect_error("roofline -t 0", 2, "0");
}

// The fields of ../shared/bench/peer_bench.py, so that one reader serves both programs.
TEST_F(InferBench, RunHasThePeersFields) {
  const json j = run_json("run -m " + tiny() + " -p 12 -n 3 -t 2 -r 2");
  ASSERT_TRUE(j.is_object());
  EXPECT_EQ(j["engine"], "infer");
  EXPECT_EQ(j["model"], tiny());
  EXPECT_EQ(j["threads"], 2);
  EXPECT_EQ(j["depth"], 0);
  EXPECT_EQ(j["pp"]["n"], 12);
  expect_positive(j["pp"]["tok_s"], 2);
  expect_positive(j["pp"]["cpu_tok_s"], 2);
  EXPECT_EQ(j["tg"]["n"], 3);
  EXPECT_EQ(j["tg"]["batch"], 1);
  expect_positive(j["tg"]["tok_s"], 2);
  for (const char* key :
       {"rss_mb", "rss_anon_mib", "rss_file_mib", "rss_mib", "load_ms", "first_token_ms"})
    EXPECT_GT(j[key].get<double>(), 0.0) << key;
  EXPECT_GE(j["first_token_ms"].get<double>(), j["load_ms"].get<double>());
  ASSERT_EQ(j["tests"].size(), 2u);
  EXPECT_EQ(j["tests"][0]["test"], "pp12");
  EXPECT_EQ(j["tests"][1]["test"], "tg3");
}

TEST_F(InferBench, RunTakesListsDepthsAndBatches) {
  // 40 tokens of depth are one whole block of the prefix cache and a rest; -ub 8 spreads prompts
  // over steps in which other sequences already generate.
  const json j = run_json("run -m " + tiny() + " -p 5,9 -n 2,4 -d 0,40 -b 1,3 -ub 8 -r 1");
  ASSERT_TRUE(j.is_object());
  std::vector<std::string> names;
  for (const json& t : j["tests"]) {
    names.push_back(t["test"].get<std::string>());
    expect_positive(t["tok_s"], 1);
  }
  EXPECT_THAT(names, testing::ElementsAre("pp5", "pp9", "tg2", "tg2 x 3", "tg4", "tg4 x 3",
                                          "pp5 @ d40", "pp9 @ d40", "tg2 @ d40", "tg2 x 3 @ d40",
                                          "tg4 @ d40", "tg4 x 3 @ d40"));
  EXPECT_EQ(j["tests"][9]["depth"], 40);
  EXPECT_EQ(j["tests"][9]["batch"], 3);
  EXPECT_EQ(j["tests"][9]["n_gen"], 2);
  EXPECT_EQ(j["tests"][9]["n_prompt"], 0);
  const json only = run_json("run -m " + tiny() + " -p 4 -n 0 -r 3");
  EXPECT_FALSE(only.contains("tg"));
  expect_positive(only["pp"]["tok_s"], 3);
}

TEST_F(InferBench, RunPrintsATable) {
  const Outcome r = run("run -m " + tiny() + " -p 4 -n 2 -r 2 --md");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  for (const char* word :
       {"| model", "t/s |", " pp4 |", " tg2 |", "llama f32", "\xc2\xb1", "--: |"})
    EXPECT_THAT(r.out, HasSubstr(word));
  const Outcome full = run("run -m " + tiny() + " -p 4 -n 2 -r 2", "/dev/full");
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("infer-bench: error: standard output"));
}

/// Shares are of the wall time and add up to it, numbers are numbers, there is one line of advice.
void expect_profile(const json& profile) {
  ASSERT_TRUE(profile.is_object());
  EXPECT_GT(profile["steps"].get<int>(), 0);
  const double step_ms = profile["step_ms"].get<double>();
  EXPECT_GT(step_ms, 0.0);
  double ms = 0.0, share = 0.0, last = step_ms;
  ASSERT_FALSE(profile["ops"].empty());
  for (const json& op : profile["ops"]) {
    for (const char* key : {"calls", "ms", "share", "bytes", "gb_s", "roofline_percent"}) {
      ASSERT_TRUE(op[key].is_number()) << op;  // NaN would be null
      EXPECT_GT(op[key].get<double>(), 0.0) << key << ' ' << op;
    }
    EXPECT_GE(op["ops"].get<double>(), 0.0) << op;
    EXPECT_TRUE(op["bound_by"] == "read" || op["bound_by"] == "ops") << op;
    EXPECT_LE(op["ms"].get<double>(), last) << "largest first";
    last = op["ms"].get<double>();
    ms += last;
    share += op["share"].get<double>();
  }
  EXPECT_LE(ms, step_ms * 1.0001);
  ms += profile["between_ops_ms"].get<double>() + profile["between_steps_ms"].get<double>();
  share +=
      profile["between_ops_share"].get<double>() + profile["between_steps_share"].get<double>();
  EXPECT_NEAR(ms, step_ms, 0.001 * step_ms);
  EXPECT_NEAR(share, 100.0, 0.1);
  for (const char* key : {"read_gb_s", "f32_gop_s", "int8_gop_s", "int4_gop_s"})
    EXPECT_GT(profile["limits"][key].get<double>(), 0.0) << key;
  EXPECT_EQ(profile["limits"]["threads"], 2);
  EXPECT_GT(profile["advice"].get<std::string>().size(), 30u);
  EXPECT_EQ(profile["advice"].get<std::string>().find('\n'), std::string::npos);
}

TEST_F(InferBench, RunProfiles) {
  const std::string args =
      "run -m " + tiny() + " -p 12 -n 3 -b 1,2 -t 2 -r 2 --profile --array-mib 1 --isa generic";
  const json j = run_json(args + " --svg " + path("a.svg"));
  ASSERT_TRUE(j.is_object());
  ASSERT_EQ(j["tests"].size(), 3u);
  EXPECT_EQ(j["tests"][0]["profile"]["steps"], 2);
  EXPECT_EQ(j["tests"][1]["profile"]["steps"], 6);
  const json& pp = j["tests"][0]["profile"]["ops"];
  const auto calls_of = [&](const std::string& name) {
    const auto op = std::ranges::find_if(pp, [&](const json& o) { return o["op"] == name; });
    return op == pp.end() ? -1.0 : (*op)["calls"].get<double>();
  };
  EXPECT_EQ(calls_of("linear attn_q/k/v f32"), 2.0);
  EXPECT_EQ(calls_of("linear output f32"), 1.0);
  const std::string svg = slurp(path("a.svg"));
  EXPECT_THAT(svg, testing::StartsWith("<svg "));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  for (const char* word : {"tiny.gguf", "pp12: ", "tg3: ", "tg3 x 2: ", "linear ffn_gate/up f32"})
    EXPECT_THAT(svg, HasSubstr(word));
  const Outcome md =
      run("run -m " + tiny() + " -p 4 -n 0 -r 1 --profile --array-mib 1 --isa generic");
  EXPECT_EQ(md.exit_code, 0) << md.err;
  for (const char* word : {"| pp4: op", "| linear ffn_down f32", "| between ops", "| between steps",
                           "| a step", "limits with ", "\npp4: "})
    EXPECT_THAT(md.out, HasSubstr(word));
  EXPECT_EQ(run_json("run -m " + tiny() + " -p 4 -n 0 -r 1")["tests"][0].count("profile"), 0u);
}

TEST_F(InferBench, RunRefusesProfilesThatCannotBe) {
  const std::string start = "run -m " + tiny() + " -p 4 -n 0 -r 1 ";
  expect_error(start + "--svg " + path("a.svg"), 2, "--profile");
  expect_error(start + "--profile --svg " + path("none/a.svg"), 1, "none/a.svg");
  expect_error(start + "--profile --svg " + tiny(), 2, "is the model");
  expect_error(start + "--profile -ngl 3", 2, "-ngl 3");
  EXPECT_TRUE(fs::exists(tiny()));
}

TEST_F(InferBench, ProfilesOfTheDemoModelAddUp) {
  const fs::path model = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  const json j = run_json("run -m " + model.string() +
                          " -p 64 -n 8 -t 2 -r 1 --profile --array-mib 16 --svg " + path("a.svg"));
  ASSERT_EQ(j["tests"].size(), 2u);
  for (const json& test : j["tests"]) {
    const json& profile = test["profile"];
    expect_profile(profile);
    double ops_ms = 0.0;
    for (const json& op : profile["ops"]) ops_ms += op["ms"].get<double>();
    EXPECT_GT(ops_ms, 0.0) << profile;
  }
  EXPECT_THAT(slurp(path("a.svg")), HasSubstr("attention f16"));
}

TEST_F(InferBench, RooflineSaysWhatRanAndWhatDidNot) {
  const json j = run_json("roofline --sample-ms 0.01 --array-mib 1 --arrays 2 -r 2 -t 1,2");
  ASSERT_TRUE(j.is_object());
  EXPECT_EQ(j["array_bytes"], 1 << 20);
  EXPECT_EQ(j["n_array"], 2);
  std::vector<std::string> ran, skipped;
  for (const json& p : j["points"]) {
    expect_positive(p["samples"], 2);
    EXPECT_GE(p["best"].get<double>(), p["median"].get<double>());
    EXPECT_EQ(p["unit"], p["name"] == "read" ? "GB/s" : "GOP/s");
    EXPECT_FALSE(p["recipe"].get<std::string>().empty());
    if (p["threads"] == 2)
      ran.push_back(p["isa"].get<std::string>() + " " + p["name"].get<std::string>());
  }
  for (const json& s : j["skipped"]) {
    skipped.push_back(s["isa"].get<std::string>());
    EXPECT_FALSE(s["why"].get<std::string>().empty());
  }
  const auto list = [](const std::vector<std::string>& names) {
    std::string all;
    for (const std::string& n : names) all += " [" + n + "]";
    return all;
  };
  std::cout << "[ measured ] ran" << list(ran) << ", skipped" << list(skipped) << '\n';
  EXPECT_THAT(ran,
              testing::IsSupersetOf({"generic read", "generic f32_mul_add", "generic int8_plain"}));
  for (const std::string& isa : isa_levels()) {
    const json one = run_json("roofline --sample-ms 0.01 --array-mib 1 -r 1 -t 1 --isa " + isa);
    for (const json& p : one["points"]) EXPECT_EQ(p["isa"], isa);
    EXPECT_FALSE(one["points"].empty());
  }
  const Outcome md = run("roofline --sample-ms 0.01 --array-mib 1 -r 1 --isa generic");
  EXPECT_EQ(md.exit_code, 0) << md.err;
  EXPECT_THAT(md.out, HasSubstr("| generic | read"));
}

TEST_F(InferBench, OpsStandAgainstTheRoofline) {
  struct Case {
    std::string args;
    double bytes, ops;  ///< of a call; 0 bytes: depend on the ISA's packing
  };
  const std::vector<Case> cases = {
      {"linear --type f16 -m 3 -n 40 -k 64", 0, 2.0 * 3 * 40 * 64},
      {"linear --type q4_k -m 1 -n 48 -k 256 --precise", 0, 2.0 * 48 * 256},
      {"linear --type q8_0 -m 70 -n 33 -k 96", 0, 2.0 * 70 * 33 * 96},
      {"prepare --type q4_0 -k 64 -m 2", 0, 0},
      {"decode --type q4_0 -k 64 -m 2", 2 * (2 * 18 + 64 * 4), 0},
      {"rms_norm -k 64 -m 2", 2 * 2 * 64 * 4, 2 * 4 * 64},
      {"logit_stats -k 100", 100 * 4 + 64, 0},
      // Two rows see 599 and 600 slots; K and V in f16, q and out in f32.
      {"attention -m 2 --n-kv 600 --n-head 4 --n-kv-head 2 --head-dim 32",
       2.0 * 600 * 2 * 32 * 2 + 8.0 * 2 * 4 * 32, 4.0 * 1199 * 4 * 32},
      {"attention -m 11 --n-kv 40 --n-head 2 --n-kv-head 2 --head-dim 64 --cache-type f32",
       2.0 * 40 * 2 * 64 * 4 + 8.0 * 11 * 2 * 64, 4.0 * (11 * 35) * 2 * 64},
  };
  for (const Case& c : cases) {
    const json j = run_json("op " + c.args + " --hot -t 2 -r 2 --sample-ms 0.01 --array-mib 1");
    ASSERT_TRUE(j.is_object()) << c.args;
    expect_positive(j["us"], 2);
    EXPECT_EQ(j["op"], c.args.substr(0, c.args.find(' ')));
    EXPECT_EQ(j["threads"], 2);
    EXPECT_EQ(j["copies"], 1);
    EXPECT_EQ(j["ops"], c.ops) << c.args;
    if (c.bytes > 0) {
      EXPECT_EQ(j["bytes"], c.bytes) << c.args;
    }
    for (const char* key : {"bytes", "gb_s", "limit_gb_s", "limit_gop_s"})
      EXPECT_GT(j[key].get<double>(), 0.0) << c.args << ' ' << key;
    EXPECT_GE(j["roofline_percent"].get<double>(), 0.0) << c.args;
  }
  const json cold =
      run_json("op linear --type q4_0 -n 512 -k 512 -r 1 --sample-ms 0.01 -t 1 --array-mib 1");
  EXPECT_GT(cold["copies"].get<int>(), 2) << "weights must not stay in a cache";
  for (const std::string& isa : isa_levels()) {
    EXPECT_EQ(run_json("op linear --hot -r 1 --sample-ms 0.01 --array-mib 1 --isa " + isa)["isa"],
              isa);
  }
  const Outcome md = run("op rms_norm --hot -r 1 --sample-ms 0.01 --array-mib 1");
  EXPECT_EQ(md.exit_code, 0) << md.err;
  EXPECT_THAT(md.out, HasSubstr("| rms_norm"));
}

TEST_F(InferBench, CompareFindsAKnownRatio) {
  // A prints 3, 6, 12, ... and B a half of it after a line of chatter: the drift is common to a
  // pair, as that of a busy machine, and must not widen the interval.
  std::ofstream(path("twice.sh")) << "n=$(cat " << path("n") << "$1)\n"
                                  << "echo $((2 * n)) > " << path("n") << "$1\n"
                                  << "echo 'chatter {'\n"
                                  << "echo \"{\\\"x\\\": {\\\"y\\\": [$n, 0, $((n * 9))]}}\"\n";
  std::ofstream(path("na")) << "6\n";
  std::ofstream(path("nb")) << "3\n";
  const std::string script = "sh " + path("twice.sh");
  const json j = run_json("compare '" + script + " a' '" + script + " b' -k x.y -r 4 --wall --rss");
  ASSERT_TRUE(j.is_object());
  EXPECT_EQ(j["pairs"], 4);
  EXPECT_THAT(j["interval"].get<std::string>(), HasSubstr("t-interval"));
  ASSERT_EQ(j["keys"].size(), 3u);
  const json& xy = j["keys"][0];
  EXPECT_EQ(xy["key"], "x.y");
  EXPECT_EQ(xy["a"], json({6, 12, 24, 48}));
  EXPECT_EQ(xy["b"], json({3, 6, 12, 24}));
  EXPECT_EQ(xy["median_a"], 18.0);
  for (const char* key : {"ratio", "median_ratio", "low", "high"})
    EXPECT_NEAR(xy[key].get<double>(), 2.0, 1e-5) << key;
  EXPECT_EQ(j["keys"][1]["key"], "wall_s");
  expect_positive(j["keys"][1]["a"], 4);
  EXPECT_EQ(j["keys"][2]["key"], "peak_rss_mib");
}

TEST_F(InferBench, CompareFindsNumbersInArraysAndBehindText) {
  // llama-bench prints an array of tests over several lines, and may say something before.
  std::ofstream(path("array.txt")) << "load: done\n[1/2] warm-up\n[\n  {\n    \"avg_ts\": 8.5,\n"
                                   << "    \"samples_ts\": [ 8, 9, 70 ]\n  },\n"
                                   << "  { \"avg_ts\": 4 }\n]\n";
  std::ofstream(path("object.txt")) << "{\"pp\": {\"tok_s\": [17]}}\nbye\n";
  const std::string a = "compare 'cat " + path("object.txt") + "' ";
  const std::string b = "'cat " + path("array.txt") + "' -r 2 ";
  const json j = run_json(a + b + "-k pp.tok_s=0.avg_ts -k pp.tok_s=0.samples_ts.2");
  ASSERT_EQ(j["keys"].size(), 2u);
  EXPECT_EQ(j["keys"][0]["key"], "pp.tok_s=0.avg_ts");
  EXPECT_EQ(j["keys"][0]["a"], json({17, 17}));
  EXPECT_EQ(j["keys"][0]["b"], json({8.5, 8.5}));
  EXPECT_EQ(j["keys"][0]["ratio"], 2.0);
  EXPECT_EQ(j["keys"][1]["b"], json({70, 70}));
  const json same =
      run_json("compare 'cat " + path("array.txt") + "' " + b + "-k 1.avg_ts -k 0.samples_ts");
  EXPECT_EQ(same["keys"][0]["median_b"], 4.0);
  EXPECT_EQ(same["keys"][1]["median_b"], 9.0);
  for (const char* key : {"2.avg_ts", "-1.avg_ts", "0x.avg_ts", "avg_ts", "0.avg_ts.0", "0."})
    expect_error("compare 'cat " + path("array.txt") + "' " + b + "-k " + key, 1,
                 std::string("--key ") + key);
}

TEST_F(InferBench, CompareSeesMemoryOfWhatTheCommandStarts) {
  // dd holds a block of the size it is told, in a child of the command's shell. Both blocks are
  // larger than infer-bench itself, which is some 100 MiB under a sanitizer: a process starts with
  // the peak of the one that forked it.
  const std::string dd = "'dd if=/dev/zero of=/dev/null count=1 bs=";
  const json j = run_json("compare " + dd + "1G; true' " + dd + "512M; true' --rss -r 1");
  EXPECT_NEAR(j["keys"][0]["a"][0].get<double>(), 1024.0, 24.0);
  EXPECT_NEAR(j["keys"][0]["b"][0].get<double>(), 512.0, 24.0);
}

TEST_F(InferBench, CompareTakesSeveralCommands) {
  const auto echo = [](const std::string& key, int x) {
    return " 'echo {\\\"" + key + "\\\":" + std::to_string(x) + "}'";
  };
  const std::string commands = echo("x", 12) + echo("y", 6) + echo("z", 3) + echo("z", 4);
  const json j = run_json("compare" + commands + " -k x=y=z -r 2");
  ASSERT_EQ(j["keys"].size(), 3u);
  const std::map<std::string, double> ratios = {{"b", 2.0}, {"c", 4.0}, {"d", 3.0}};
  size_t i = 0;
  for (const auto& [letter, ratio] : ratios) {
    const json& entry = j["keys"][i++];
    EXPECT_EQ(entry["a"], json({12, 12}));
    EXPECT_EQ(entry[letter], json({12 / ratio, 12 / ratio})) << letter;
    EXPECT_EQ(entry["ratio"], ratio) << letter;
    EXPECT_TRUE(j.contains(letter));
  }
  expect_error("compare" + commands + " -k x=y -r 1", 1, "--key y: not in the output of command C");
}

TEST_F(InferBench, CompareMixesTheOrderOfPairs) {
  const std::string note = "'printf %s X >> " + path("log") + "; echo {\\\"x\\\":1}'";
  const auto with = [&](char c) {
    std::string s = note;
    s.replace(s.find('X'), 1, 1, c);
    return s;
  };
  run_json("compare " + with('a') + " " + with('b') + " -k x -r 20 --warmup 1");
  const std::string log = slurp(path("log"));
  ASSERT_EQ(log.size(), 42u) << log;
  EXPECT_EQ(log.substr(0, 2), "ab") << "the warm-up";
  int n_ab = 0;
  for (size_t i = 2; i < log.size(); i += 2) {
    EXPECT_NE(log[i], log[i + 1]) << "a pair is one of each";
    n_ab += log[i] == 'a' ? 1 : 0;
  }
  EXPECT_GT(n_ab, 2);
  EXPECT_LT(n_ab, 18);
}

TEST_F(InferBench, CompareRefusesWhatIsNoMeasurement) {
  expect_error("compare true", 2, "CMD");
  expect_error("compare true true", 2, "--key");
  expect_error("compare true true -k x", 1, "no JSON");
  expect_error("compare 'exit 3' 'exit 3' --wall", 1, "exit code 3");
  expect_error("compare 'kill -9 $$' 'kill -9 $$' --wall", 1, "signal");
  const std::string echo = "'echo {\\\"x\\\":";
  expect_error("compare " + echo + "1}' " + echo + "1}' -k y", 1, "--key y");
  expect_error("compare " + echo + "[]}' " + echo + "[]}' -k x", 1, "no values");
  expect_error("compare " + echo + "true}' " + echo + "true}' -k x", 1, "no number");
  expect_error("compare " + echo + "0}' " + echo + "0}' -k x", 2, "positive");
}

}  // namespace
}  // namespace infer::test
