#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/stories260k.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_vocab.h"
#include "tests/support/tokenizer_files.h"

/// Published vocabularies against ids made by independent tokenizers (shared/data/README.md says by
/// which).
namespace infer::test {
namespace {

using text::TokenId;
using text::Tokenizer;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

constexpr text::EncodeOptions kPlainText{.add_special = false, .parse_special = false};

TokenizerPtr must_load(const Result<GgufImage>& image) {
  EXPECT_TRUE(image.ok()) << image.error().message;
  if (!image.ok()) return nullptr;
  auto t = load_tokenizer(*image);
  EXPECT_TRUE(t.ok()) << t.error().message;
  return t.ok() ? *t : nullptr;
}

std::vector<TokenId> must_encode(const Tokenizer& t, std::string_view text) {
  auto ids = t.encode(text, kPlainText);
  EXPECT_TRUE(ids.ok()) << ids.error().message;
  return ids.ok() ? *ids : std::vector<TokenId>{-1};
}

class Tricky : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data at " << shared_dir();
    auto body = read_text(folder() / "tricky.txt");
    ASSERT_TRUE(body.ok()) << body.error().message;
    for (const std::string& line : split_lines(*body)) cases_.push_back(unescape_tricky(line));
    ASSERT_EQ(cases_.size(), 201u);
  }
  static std::filesystem::path folder() { return shared_dir() / "data" / "tokenizer"; }

  void expect_column(const Tokenizer& t, const std::string& column) const {
    auto body = read_text(folder() / "tricky.expected.jsonl");
    ASSERT_TRUE(body.ok()) << body.error().message;
    int n_compared = 0;
    for (const std::string& line : split_lines(*body)) {
      const auto row = nlohmann::json::parse(line);
      const auto number = row.at("line").get<size_t>();
      EXPECT_EQ(must_encode(t, cases_.at(number - 1)), row.at(column).get<std::vector<TokenId>>())
          << column << ", tricky.txt line " << number;
      ++n_compared;
    }
    EXPECT_EQ(n_compared, 181);
  }
  /// Bytes come back, well-formed or not.
  void expect_round_trip(const Tokenizer& t) const {
    for (size_t i = 0; i < cases_.size(); ++i) {
      EXPECT_EQ(t.decode(must_encode(t, cases_[i]), true), cases_[i])
          << "tricky.txt line " << i + 1;
    }
  }
  std::vector<std::string> cases_;
};

TEST_F(Tricky, MistralV1) {
  const auto t = must_load(sentencepiece_tokenizer(folder() / "mistral" / "tokenizer.model.v1"));
  ASSERT_NE(t, nullptr);
  expect_column(*t, "mistral-v1");
}

TEST_F(Tricky, MistralV3) {
  const auto t = must_load(sentencepiece_tokenizer(folder() / "mistral" / "tokenizer.model.v3"));
  ASSERT_NE(t, nullptr);
  expect_column(*t, "mistral-v3");
}

TEST_F(Tricky, Stories260K) {
  auto image = convert_stories260k(shared_dir() / "data" / "models" / "stories260K");
  if (image.ok())
    image->set("tokenizer.ggml.remove_extra_whitespaces",
               true);  // as tok512.model's normalizer says
  const auto t = must_load(image);
  ASSERT_NE(t, nullptr);
  expect_column(*t, "stories260K");
}

TEST_F(Tricky, Gpt2) {
  const auto t = must_load(
      gpt2_tokenizer(folder() / "gpt2" / "vocab.json", folder() / "gpt2" / "merges.txt", "gpt-2"));
  ASSERT_NE(t, nullptr);
  expect_column(*t, "gpt2");
  expect_round_trip(*t);
}

TEST_F(
    Tricky,
    GptNeox) {  // NFC changes the text, so there is no way back; special tokens are matched there
  const auto t = must_load(tokenizer_json(folder() / "gpt-neox" / "tokenizer.json.gz", "gpt-neox"));
  ASSERT_NE(t, nullptr);
  auto body = read_text(folder() / "tricky.expected.jsonl");
  ASSERT_TRUE(body.ok());
  for (const std::string& line : split_lines(*body)) {
    const auto row = nlohmann::json::parse(line);
    const auto number = row.at("line").get<size_t>();
    auto ids = t->encode(cases_.at(number - 1), {.add_special = false, .parse_special = true});
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(*ids, row.at("gpt-neox").get<std::vector<TokenId>>()) << "tricky.txt line " << number;
  }
}

TEST_F(Tricky, IllFormedBytesKeepTheirValue) {
  const auto bpe = must_load(
      gpt2_tokenizer(folder() / "gpt2" / "vocab.json", folder() / "gpt2" / "merges.txt", "gpt-2"));
  const auto spm = must_load(sentencepiece_tokenizer(folder() / "mistral" / "tokenizer.model.v1"));
  ASSERT_NE(bpe, nullptr);
  ASSERT_NE(spm, nullptr);
  // Lines 174..193 and the replacement characters that each deserves.
  const std::vector<size_t> expected = {1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 6, 4, 5, 2, 1, 1, 1, 2};
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string& bytes = cases_.at(173 + i);
    for (const Tokenizer* t : {bpe.get(), spm.get()}) {
      const auto ids = must_encode(*t, bytes);
      EXPECT_EQ(t->decode(ids), bytes) << "tricky.txt line " << 174 + i;
      text::StreamDecoder stream(*t, false);
      std::string shown;
      for (const TokenId id : ids) shown += stream.push(id);
      shown += stream.finish();
      EXPECT_EQ(text::utf8_valid_end(shown, 0), shown.size());
      size_t n_replaced = 0;
      for (size_t at = 0; (at = shown.find("\ufffd", at)) != std::string::npos; at += 3)
        ++n_replaced;
      EXPECT_EQ(n_replaced, expected[i])
          << "tricky.txt line " << 174 + i << ", " << t->model_name();
    }
  }
}

class GgufVocab : public testing::TestWithParam<const char*> {};

TEST_P(GgufVocab, IdsAreThoseOfTheOutFile) {
  if (!has_shared()) GTEST_SKIP() << "no shared data at " << shared_dir();
  const std::string path = shared_dir() / "data" / "tokenizer" / "gguf-vocab" / GetParam();
  auto reader = gguf::Reader::open(path);
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  auto t = Tokenizer::load(**reader);
  ASSERT_TRUE(t.ok()) << t.error().message;
  auto inp = read_text(path + ".inp"), out = read_text(path + ".out");
  ASSERT_TRUE(inp.ok() && out.ok());
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (size_t at = 0; at <= inp->size();) {
    const size_t end = std::min(inp->find(separator, at), inp->size());
    texts.push_back(inp->substr(at, end - at));
    at = end + (end < inp->size() ? separator.size() : 1);
  }
  const std::vector<std::string> rows = split_lines(*out);
  ASSERT_EQ(rows.size(), 46u);
  ASSERT_EQ(texts.size(), 47u);  // the last is empty and has no row
  EXPECT_TRUE(must_encode(**t, texts.back()).empty());
  for (size_t i = 0; i < rows.size(); ++i) {
    std::istringstream row(rows[i]);
    std::vector<TokenId> ids;
    for (TokenId id; row >> id;) ids.push_back(id);
    EXPECT_EQ(must_encode(**t, texts[i]), ids) << "case " << i << ": '" << texts[i] << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufVocab,
                         testing::Values("ggml-vocab-gpt-2.gguf", "ggml-vocab-falcon.gguf",
                                         "ggml-vocab-mpt.gguf", "ggml-vocab-phi-3.gguf"));

}  // namespace
}  // namespace infer::test
