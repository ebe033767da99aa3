#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include "tools/common/docs/command_doc.h"

/// Completions and man pages as the programs print them, against their --help and the shells.
namespace infer::tools {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int exit_code = -1;
  std::string out;  ///< stderr too
};

Outcome shell(const std::string& command) {
  Outcome outcome;
  std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char chunk[4096];
  while (const size_t n = std::fread(chunk, 1, sizeof(chunk), pipe)) outcome.out.append(chunk, n);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

bool is_there(const std::string& program) { return shell("command -v " + program).exit_code == 0; }

class CliDocs : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "infer-docs-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string name() const { return fs::path(GetParam()).filename().string(); }
  std::string function() const { return "_" + std::regex_replace(name(), std::regex("-"), "_"); }

  std::string print(const std::string& args) {
    const Outcome r = shell("'" + GetParam() + "' " + args);
    EXPECT_EQ(r.exit_code, 0) << args << ": " << r.out;
    return r.out;
  }
  std::string save(const std::string& args) {
    const std::string path = (folder_ / "file").string();
    std::ofstream(path, std::ios::binary) << print(args);
    return path;
  }

  /// The flags that --help lists, of the subcommands too.
  std::set<std::string> flags_of_help() {
    std::vector<std::string> helps{print("--help")};
    const size_t commands = helps[0].find("\nSubcommands:");
    if (commands != std::string::npos) {
      const std::string list = helps[0].substr(commands + 1);
      const std::regex command("\n  ([a-z]+) ");
      for (auto it = std::sregex_iterator(list.begin(), list.end(), command);
           it != std::sregex_iterator(); ++it)
        helps.push_back(print((*it)[1].str() + " --help"));
      EXPECT_GT(helps.size(), 1u);
    }
    std::set<std::string> flags;
    const std::regex line("\n +(-[-a-zA-Z0-9,]+)"), flag("-[-a-zA-Z0-9]+");
    for (const std::string& help : helps) {
      for (auto it = std::sregex_iterator(help.begin(), help.end(), line);
           it != std::sregex_iterator(); ++it) {
        const std::string names = (*it)[1].str();
        for (auto f = std::sregex_iterator(names.begin(), names.end(), flag);
             f != std::sregex_iterator(); ++f)
          flags.insert(f->str());
      }
    }
    return flags;
  }

  fs::path folder_;
};

TEST_P(CliDocs, HoldEveryFlagOfHelp) {
  const std::set<std::string> flags = flags_of_help();
  EXPECT_GT(flags.size(), 6u);
  EXPECT_THAT(flags, testing::Contains("--help"));
  const std::string bash = print("--completion bash"), zsh = print("--completion zsh"),
                    fish = print("--completion fish"), man = print("--man-page");
  for (const std::string& flag : flags) {
    const bool is_long = flag.starts_with("--");
    EXPECT_TRUE(std::regex_search(bash, std::regex("[ '|]" + flag + "[ '|)]"))) << flag;
    EXPECT_THAT(zsh, HasSubstr(flag + "["));
    EXPECT_TRUE(std::regex_search(
        fish, std::regex((is_long ? " -l " + flag.substr(2) : " -s " + flag.substr(1)) + " ")))
        << flag;
    EXPECT_THAT(man, HasSubstr("\\fB" + std::regex_replace(flag, std::regex("-"), "\\-") + "\\fR"));
  }
}

TEST_P(CliDocs, AreNotInHelpAndKnowTheirShells) {
  EXPECT_THAT(print("--help"), AllOf(Not(HasSubstr("--completion")), Not(HasSubstr("--man-page"))));
  for (const std::string what : {"tcsh", ""}) {
    const Outcome wrong = shell("'" + GetParam() + "' --completion " + what);
    EXPECT_EQ(wrong.exit_code, 2);
    EXPECT_EQ(wrong.out,
              name() + ": error: --completion: '" + what + "' is not bash, zsh or fish\n");
  }
}

TEST_P(CliDocs, BashCompletes) {
  if (!is_there("bash")) GTEST_SKIP() << "no bash here";
  const std::string file = save("--completion bash");
  EXPECT_EQ(shell("bash -n " + file).out, "");
  std::ofstream(folder_ / "a model.gguf") << "x";
  const auto complete = [&](const std::string& words) {
    return shell("cd '" + folder_.string() + "' && bash -c 'source " + file + "; COMP_WORDS=(" +
                 name() + " " + words + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); " + function() +
                 "; printf \"%s\\n\" \"${COMPREPLY[@]}\"'")
        .out;
  };
  EXPECT_THAT(complete("--hel"), testing::StartsWith("--help\n"));
  if (name() == "infer-cli") {
    EXPECT_EQ(complete("--top-"), "--top-k\n--top-p\n--top-n-sigma\n--top-nsigma\n");
    EXPECT_EQ(complete("--mirostat \"\""), "0\n2\n");
    for (const char* flag : {"-m", "--lora", "--lora-scaled", "--prompt-cache", "--batch", "--out"})
      EXPECT_EQ(complete(std::string(flag) + " a"), "a model.gguf\n") << flag;
    EXPECT_EQ(complete("--top-k \"\""), "\n");
  } else if (name() == "quantize") {
    EXPECT_EQ(complete("--ten"), "--tensor-type\n");
    EXPECT_EQ(complete("im"), "imatrix\n");
    EXPECT_EQ(complete("imatrix --in-f"), "--in-file\n");
    EXPECT_EQ(complete("a"), "a model.gguf\n");
    for (const char* flag : {"--imatrix", "--report"})
      EXPECT_EQ(complete(std::string(flag) + " a"), "a model.gguf\n") << flag;
  } else if (name() == "perplexity") {
    EXPECT_EQ(complete("--kl"), "--kl-divergence\n--kl-divergence-base\n");
    EXPECT_EQ(complete("--style \"\""), "answers\nletters\n");
    for (const char* flag : {"-m", "-f", "--binary-file", "--against", "--kl-divergence-base",
                             "--dev", "--jsonl", "--resume", "--svg", "--svg-with"})
      EXPECT_EQ(complete(std::string(flag) + " a"), "a model.gguf\n") << flag;
    EXPECT_EQ(complete("pa"), "pack\n");
    EXPECT_EQ(complete("pack a"), "a model.gguf\n");
    EXPECT_EQ(complete("compare --"), "--help\n--json\n");
  } else {
    EXPECT_EQ(complete("inf"), "info\n");
    EXPECT_EQ(complete("info a"), "a model.gguf\n");
    EXPECT_THAT(complete("info --"), AllOf(HasSubstr("--kv\n"), Not(HasSubstr("--max-size"))));
    EXPECT_EQ(complete("split --"), "--help\n--max-tensors\n--max-size\n");
  }
}

TEST_P(CliDocs, ZshAccepts) {
  if (!is_there("zsh")) GTEST_SKIP() << "no zsh here";
  EXPECT_EQ(shell("zsh -n " + save("--completion zsh")).out, "");
}

TEST_P(CliDocs, FishAccepts) {
  if (!is_there("fish")) GTEST_SKIP() << "no fish here";
  EXPECT_EQ(shell("fish --no-execute " + save("--completion fish")).out, "");
}

TEST_P(CliDocs, ManPageIsSetWithoutWarnings) {
  if (!is_there("groff")) GTEST_SKIP() << "no groff here";
  const std::string file = save("--man-page");
  EXPECT_EQ(shell("groff -man -ww -z " + file).out, "");
  const std::string text = shell("groff -man -Tascii -P-cbou " + file).out;
  EXPECT_THAT(text, AllOf(HasSubstr("SYNOPSIS"), HasSubstr("OPTIONS"), HasSubstr("EXIT STATUS")));
  for (const std::string& flag : flags_of_help()) EXPECT_THAT(text, HasSubstr(flag));
}

INSTANTIATE_TEST_SUITE_P(Programs, CliDocs,
                         testing::Values(INFER_CLI_PROGRAM, INFER_GGUF_PROGRAM, QUANTIZE_PROGRAM,
                                         PERPLEXITY_PROGRAM),
                         [](const auto& test) {
                           const std::string name = fs::path(test.param).filename().string();
                           return std::regex_replace(name, std::regex("-"), "");
                         });

/// Help may hold whatever the shells and roff would read as their own.
TEST(CliDocsText, QuotesWhatShellsWouldRead) {
  CLI::App app("Does $HOME and `things`.\n.It's \\a test.", "a-tool");
  std::string value;
  app.add_option("-x,--ex", value, "it's [one]: $(rm) `x` \\n \"q\"")
      ->check(CLI::IsMember({"a", "b"}));
  app.add_option("--hidden", value, "unseen")->group("");
  const CommandDoc doc = describe(app);
  EXPECT_THAT(doc.flags.back().choices, testing::ElementsAre("a", "b"));
  const fs::path file = fs::temp_directory_path() / ("infer-docs-" + std::to_string(getpid()));
  const auto check = [&](const std::string& text, const std::string& program,
                         const std::string& command) {
    EXPECT_THAT(text, Not(HasSubstr("hidden")));
    std::ofstream(file, std::ios::binary) << text;
    if (is_there(program)) {
      EXPECT_EQ(shell(command + " " + file.string()).out, "") << text;
    }
  };
  check(bash_completion(doc), "bash", "bash -n");
  check(zsh_completion(doc), "zsh", "zsh -n");
  check(fish_completion(doc), "fish", "fish --no-execute");
  check(man_page(doc), "groff", "groff -man -ww -z");
  fs::remove(file);
  EXPECT_THAT(man_page(doc), HasSubstr("\n\\&.It's \\ea test."));
  EXPECT_THAT(zsh_completion(doc), HasSubstr("it'\\''s \\[one\\]: $(rm) `x`"));
}

}  // namespace
}  // namespace infer::tools
