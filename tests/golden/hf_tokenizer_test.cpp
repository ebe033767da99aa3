#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/text/unicode.h"
#include "quantize/convert/hf_tokenizer.h"
#include "tests/support/hf_tokenizer_case.h"
#include "tests/support/test_env.h"

namespace infer::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using text::TokenId;

constexpr size_t kLines = 2000;
constexpr size_t kLineBytes = 100;

std::string beginning(const std::string& line) {
  size_t size = std::min(line.size(), kLineBytes);
  while (size < line.size() && (line[size] & 0xc0) == 0x80) --size;
  return line.substr(0, size);
}

/// The lines of tests/data/make_hf_tokenizer.py; empty when a file is missing.
std::vector<std::string> golden_lines() {
  const fs::path data = shared_dir() / "data";
  std::vector<std::string> lines;
  auto tricky = read_text(data / "tokenizer" / "tricky.txt");
  if (!tricky.ok()) return {};
  for (const std::string& escaped : split_lines(*tricky)) {
    std::string line = unescape_tricky(escaped);
    if (text::utf8_valid_end(line, 0) == line.size()) lines.push_back(std::move(line));
  }
  std::vector<std::string> sources[2];
  const char* names[] = {"wikitext-2/wiki.test.raw.gz", "hellaswag/hellaswag_val_full.txt.gz"};
  for (int i = 0; i < 2; ++i) {
    auto body = read_text(data / names[i]);
    if (!body.ok()) return {};
    for (const std::string& line : split_lines(*body)) {
      if (line.find_first_not_of(' ') != std::string::npos) sources[i].push_back(beginning(line));
    }
  }
  for (size_t i = 0, n = kLines - lines.size(); i < n; ++i) lines.push_back(sources[i % 2].at(i));
  return lines;
}

Converted convert_folder(const fs::path& folder, int64_t n_vocab, const std::string& arch) {
  auto files = quantize::read_tokenizer_files(folder.string());
  if (!files.ok()) return {.error = files.error().message};
  return convert_files(*files, n_vocab, arch);
}

void expect_ids(const Converted& c, const std::vector<std::string>& lines, const json& expected,
                bool parse_special) {
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  ASSERT_EQ(expected.size(), lines.size());
  size_t n_wrong = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    auto ids =
        c.tokenizer->encode(lines[i], {.add_special = false, .parse_special = parse_special});
    ASSERT_TRUE(ids.ok()) << ids.error().message;
    const auto theirs = expected.at(i).get<std::vector<TokenId>>();
    if (*ids == theirs || ++n_wrong > 5) continue;
    EXPECT_EQ(*ids, theirs) << "line " << i << ": " << json(lines[i]);
  }
  EXPECT_EQ(n_wrong, 0u);
  testing::Test::RecordProperty("lines", static_cast<int>(lines.size()));
}

class HfTokenizerGolden : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data at " << shared_dir();
    lines_ = golden_lines();
    stored_ = stored_hf_tokenizer();
    ASSERT_EQ(lines_.size(), kLines);
    ASSERT_TRUE(stored_.is_object());
  }
  std::vector<std::string> lines_;
  json stored_;
};

TEST_F(HfTokenizerGolden, ByteBpeOfTheGoldenFolders) {
  const Converted c = convert_folder(shared_dir() / "golden/hf/gpt2", 512, "gpt2");
  expect_ids(c, lines_, stored_.at("golden").at("bpe"), /*parse_special=*/true);
  EXPECT_TRUE(c.notes.empty());
  EXPECT_EQ(c.tokenizer->pre_name(), "gpt-2");
}

TEST_F(HfTokenizerGolden, SentencePieceOfTheGoldenFolders) {
  const Converted c = convert_folder(shared_dir() / "golden/hf/llama", 512, "llama");
  expect_ids(c, lines_, stored_.at("golden").at("sentencepiece"), /*parse_special=*/false);
  EXPECT_TRUE(c.notes.empty());
  EXPECT_TRUE(c.tokenizer->special().add_bos);
}

TEST_F(HfTokenizerGolden, EveryGoldenFolderConverts) {
  size_t n = 0;
  for (const auto& entry : fs::directory_iterator(shared_dir() / "golden" / "hf")) {
    if (!entry.is_directory()) continue;
    const Converted c = convert_folder(entry.path(), 512, entry.path().filename().string());
    ASSERT_NE(c.tokenizer, nullptr) << entry.path() << ": " << c.error;
    EXPECT_EQ(c.tokenizer->n_vocab(), 512) << entry.path();
    EXPECT_GE(c.tokenizer->special().eos, 0) << entry.path();
    ++n;
  }
  EXPECT_GE(n, 18u);
}

/// Real vocabularies: what `tokenizers` and `sentencepiece` made of the hard cases is stored beside
/// them.
class HfTokenizerReal : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data at " << shared_dir();
    const fs::path data = shared_dir() / "data" / "tokenizer";
    auto tricky = read_text(data / "tricky.txt");
    auto expected = read_text(data / "tricky.expected.jsonl");
    ASSERT_TRUE(tricky.ok() && expected.ok());
    const std::vector<std::string> escaped = split_lines(*tricky);
    for (const std::string& row : split_lines(*expected)) {
      rows_.push_back(json::parse(row));
      lines_.push_back(unescape_tricky(escaped.at(rows_.back().at("line").get<size_t>() - 1)));
    }
    ASSERT_GT(rows_.size(), 150u);
  }
  void check(const quantize::HfTokenizerFiles& files, int64_t n_vocab, const char* column,
             bool parse_special) {
    json expected = json::array();
    for (const json& row : rows_) expected.push_back(row.at(column));
    expect_ids(convert_files(files, n_vocab), lines_, expected, parse_special);
  }
  static std::string data(const char* name) {
    auto body = read_text(shared_dir() / "data" / name);
    EXPECT_TRUE(body.ok()) << name;
    return body.ok() ? *body : std::string();
  }
  std::vector<json> rows_;
  std::vector<std::string> lines_;
};

TEST_F(HfTokenizerReal, GptNeox) {
  check({.folder = "neox", .tokenizer_json = data("tokenizer/gpt-neox/tokenizer.json.gz")}, 50432,
        "gpt-neox", /*parse_special=*/true);
}
TEST_F(HfTokenizerReal, MistralV1) {
  check({.folder = "v1", .tokenizer_model = data("tokenizer/mistral/tokenizer.model.v1")}, 32000,
        "mistral-v1", /*parse_special=*/false);
}
TEST_F(HfTokenizerReal, MistralV3) {
  check({.folder = "v3", .tokenizer_model = data("tokenizer/mistral/tokenizer.model.v3")}, 32768,
        "mistral-v3", /*parse_special=*/false);
}
TEST_F(HfTokenizerReal, Stories260k) {
  check({.folder = "s", .tokenizer_model = data("models/stories260K/tok512.model")}, 512,
        "stories260K", /*parse_special=*/false);
}

}  // namespace
}  // namespace infer::test
