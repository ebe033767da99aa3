#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_vocab.h"
#include "tests/support/tokenizer_files.h"

/// 20,000 lines against Hugging Face `tokenizers` and `sentencepiece`, which run in Python
/// (tokenizer_oracle.py). INFER_ORACLE_DIR, set by CMake, is where fetch_oracles.sh unpacks those
/// packages.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using text::TokenId;
using text::Tokenizer;

constexpr size_t kLines = 20'000;

/// WikiText, raw and tokenised, the hard cases that are UTF-8, filled up with lines of mixed
/// scripts. Empty with a reason when it cannot be read.
std::vector<std::string> corpus(std::string& reason) {
  std::vector<std::string> lines;
  for (const char* name : {"wiki.test.raw.gz", "test.tokens.txt.gz", "valid.tokens.txt.gz"}) {
    auto body = read_text(shared_dir() / "data" / "wikitext-2" / name);
    if (!body.ok()) {
      reason = body.error().message;
      return {};
    }
    for (std::string& line : split_lines(*body)) lines.push_back(std::move(line));
  }
  auto tricky = read_text(shared_dir() / "data" / "tokenizer" / "tricky.txt");
  if (!tricky.ok()) {
    reason = tricky.error().message;
    return {};
  }
  for (const std::string& escaped : split_lines(*tricky)) {
    std::string line = unescape_tricky(escaped);
    if (text::utf8_valid_end(line, 0) == line.size()) lines.push_back(std::move(line));
  }
  if (lines.size() >= kLines) {
    reason = "no room for mixed scripts";
    return {};
  }
  for (std::string& line : mixed_script_lines(kLines - lines.size(), /*seed=*/20'000))
    lines.push_back(std::move(line));
  return lines;
}

int shell(const std::string& command) { return std::system(command.c_str()); }

class TokenizerOracle : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data at " << shared_dir();
    const std::string fetch =
        std::string("sh tests/golden/fetch_oracles.sh '") + INFER_ORACLE_DIR + "' tokenizers >&2";
    if (shell(fetch) != 0) {
      GTEST_SKIP() << "the Python packages tokenizers and sentencepiece cannot be had "
                      "(tests/golden/fetch_oracles.sh)";
    }
  }

  /// Ids of `lines` by the oracle.
  static std::vector<std::vector<TokenId>> oracle_ids(const std::string& arguments,
                                                      const std::vector<std::string>& lines) {
    const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
    const fs::path base = fs::path(INFER_ORACLE_DIR) / info->name();
    const std::string in = base.string() + ".texts.jsonl", out = base.string() + ".ids.jsonl";
    {
      std::ofstream file(in, std::ios::binary);
      for (const std::string& line : lines) file << nlohmann::json(line).dump() << '\n';
    }
    const std::string command = std::string("PYTHONPATH='") + INFER_ORACLE_DIR +
                                "' python3 tests/golden/tokenizer_oracle.py " + arguments + " < '" +
                                in + "' > '" + out + "'";
    EXPECT_EQ(shell(command), 0) << command;
    std::vector<std::vector<TokenId>> ids;
    std::ifstream file(out, std::ios::binary);
    for (std::string line; std::getline(file, line);) ids.push_back(nlohmann::json::parse(line));
    std::error_code ec;
    fs::remove(in, ec);
    fs::remove(out, ec);
    return ids;
  }

  /// Encodes the corpus, compares, and reports the speed.
  static void compare(const Tokenizer& t, const std::string& arguments,
                      bool parse_special = false) {
    std::string reason;
    const std::vector<std::string> lines = corpus(reason);
    ASSERT_EQ(lines.size(), kLines) << reason;
    size_t n_bytes = 0, n_tok = 0;
    std::vector<std::vector<TokenId>> ours;
    const std::clock_t start = std::clock();
    for (const std::string& line : lines) {
      auto ids = t.encode(line, {.add_special = false, .parse_special = parse_special});
      ASSERT_TRUE(ids.ok()) << ids.error().message;
      n_bytes += line.size();
      n_tok += ids->size();
      ours.push_back(*std::move(ids));
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%zu lines, %zu bytes, %zu tokens: %.2f MB/s of CPU time\n", lines.size(), n_bytes,
                n_tok, static_cast<double>(n_bytes) / seconds / 1e6);
    const std::vector<std::vector<TokenId>> theirs = oracle_ids(arguments, lines);
    ASSERT_EQ(theirs.size(), lines.size());
    size_t n_wrong = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      if (ours[i] == theirs[i]) continue;
      if (++n_wrong > 5) break;
      EXPECT_EQ(ours[i], theirs[i]) << "line " << i << ": " << nlohmann::json(lines[i]);
    }
    EXPECT_EQ(n_wrong, 0u);
  }

  static void compare_image(const Result<GgufImage>& image, const std::string& arguments) {
    ASSERT_TRUE(image.ok()) << image.error().message;
    auto t = load_tokenizer(*image);
    ASSERT_TRUE(t.ok()) << t.error().message;
    compare(**t, arguments);
  }

  static void compare_model(const char* file, const std::string& kind, bool parse_special = false) {
    const fs::path path = models_dir() / file;
    if (!fs::exists(path)) GTEST_SKIP() << "no model at " << path;
    auto reader = gguf::Reader::open(path.string());
    ASSERT_TRUE(reader.ok()) << reader.error().message;
    auto t = Tokenizer::load(**reader);
    ASSERT_TRUE(t.ok()) << t.error().message;
    compare(**t, kind + " '" + path.string() + "'", parse_special);
  }

  static std::string data(const std::string& name) {
    return (shared_dir() / "data" / "tokenizer" / name).string();
  }
};

TEST_F(TokenizerOracle, Gpt2FromItsOwnFiles) {
  const std::string vocab = data("gpt2/vocab.json"), merges = data("gpt2/merges.txt");
  compare_image(gpt2_tokenizer(vocab, merges, "gpt-2"), "bpe '" + vocab + "' '" + merges + "'");
}

TEST_F(TokenizerOracle, MistralV1FromItsOwnFile) {
  const std::string path = data("mistral/tokenizer.model.v1");
  compare_image(sentencepiece_tokenizer(path), "sp '" + path + "'");
}

TEST_F(TokenizerOracle, MistralV3FromItsOwnFile) {
  const std::string path = data("mistral/tokenizer.model.v3");
  compare_image(sentencepiece_tokenizer(path), "sp '" + path + "'");
}

TEST_F(TokenizerOracle, SmolLm2FromTheGguf) {
  compare_model("smollm2-135m-instruct-q4_1.gguf", "gguf-bpe");
}

TEST_F(TokenizerOracle, SmolLm2WithControlTokensRead) {
  compare_model("smollm2-135m-instruct-q4_1.gguf", "gguf-bpe-added", /*parse_special=*/true);
}

TEST_F(TokenizerOracle, GemmaFromTheGguf) { compare_model("gemma-3-270m-q4_k_m.gguf", "gguf-sp"); }

}  // namespace
}  // namespace infer::test
