#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/text/pretokenize.h"
#include "core/text/unicode.h"

namespace infer::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using text::PreTokenizer;

std::vector<std::string> words(std::string_view name, std::string_view text) {
  auto def = text::find_pre_tokenizer(name, "test.gguf");
  EXPECT_TRUE(def.ok()) << def.error().message;
  if (!def.ok()) return {};
  auto pre = PreTokenizer::compile(text::rules_of(**def), /*trusted=*/true);
  EXPECT_TRUE(pre.ok()) << pre.error().message;
  PreTokenizer::Scratch scratch;
  std::vector<std::string_view> found;
  auto done = pre->split(text, scratch, found);
  EXPECT_TRUE(done.ok()) << done.error().message;
  return {found.begin(), found.end()};
}

TEST(PreTokenize, Gpt2) {
  EXPECT_THAT(words("gpt-2", "Don't  stop, 1234 \u00e9t\u00e9"),
              ElementsAre("Don", "'t", " ", " stop", ",", " 1234", " \u00e9t\u00e9"));
  EXPECT_THAT(words("gpt-2", "DON'T"), ElementsAre("DON", "'", "T"));
  EXPECT_THAT(words("gpt-2", "a \n\n b \n"), ElementsAre("a", " \n\n", " b", " \n"));
  EXPECT_THAT(words("mpt", "x=1;"), ElementsAre("x", "=", "1", ";"));
}

TEST(PreTokenize, SmolLmCutsDigitsFirst) {
  EXPECT_THAT(words("smollm", "in 1984, \u0669"),
              ElementsAre("in", " ", "1", "9", "8", "4", ",", " ", "\u0669"));
  // The digits cut the text before GPT-2's pattern sees it, so a space stays behind.
  EXPECT_THAT(words("smollm", "a  1"), ElementsAre("a", "  ", "1"));
}

TEST(PreTokenize, Llama3) {
  EXPECT_THAT(words("llama-bpe", "DON'T 12345 (x)\n\n y"),
              ElementsAre("DON", "'T", " ", "123", "45", " (", "x", ")\n\n", " y"));
  EXPECT_THAT(words("llama-bpe", "$foo\tbar  \n  z"),
              ElementsAre("$foo", "\tbar", "  \n", " ", " z"));
}

TEST(PreTokenize, Qwen2TakesDigitsOneByOne) {
  EXPECT_THAT(words("qwen2", "x 123!\n"), ElementsAre("x", " ", "1", "2", "3", "!\n"));
}

TEST(PreTokenize, FalconAndDefault) {
  EXPECT_THAT(words("falcon", "a `b` 12345"),
              ElementsAre("a", " ", "`", "b", "`", " ", "123", "45"));
  EXPECT_THAT(words("falcon", "x+y, 12"), ElementsAre("x", "+", "y", ",", " 12"));
  EXPECT_THAT(words("default", "a `b` 12345"), ElementsAre("a", " `", "b", "`", " ", "123", "45"));
}

TEST(PreTokenize, BloomAndViking) {
  // A space goes with the word after it, marks and brackets stand together.
  EXPECT_THAT(words("bloom", "Don't (stop), 12:30  now.\n"),
              ElementsAre("Don't", " (", "stop", "),", " 12:30", " ", " now", ".\n"));
  EXPECT_THAT(words("bloom", "a\u3002b\uff0cc\u0964 d\u2026"),
              ElementsAre("a", "\u3002", "b", "\uff0c", "c", "\u0964", " d", "\u2026"));
  EXPECT_THAT(words("viking", "in 1984,"), ElementsAre("in", " ", "1", "9", "8", "4", ","));
  EXPECT_THAT(words("gpt3-finnish", "x-y z"), ElementsAre("x-y", " z"));
  EXPECT_THAT(words("poro-chat", "x-y z"), ElementsAre("x-y", " z"));
}

TEST(PreTokenize, CapitalsBeginWords) {
  EXPECT_THAT(words("tekken", "HTTPServer isn't 12/\n"),
              ElementsAre("HTTPServer", " isn", "'t", " ", "1", "2", "/\n"));
  EXPECT_THAT(words("gpt-4o", "camelCase isn't 1234"),
              ElementsAre("camel", "Case", " isn't", " ", "123", "4"));
}

TEST(PreTokenize, DeepseekCoder) {
  EXPECT_THAT(words("deepseek-coder", "a b!! 12\n\u6f22\u5b57"),
              ElementsAre("a", " b", "!!", " ", "1", "2", "\n", "\u6f22\u5b57"));
}

/// tests/data/make_pretokenize.py: the models' own patterns in Hugging Face `tokenizers`.
TEST(PreTokenize, AgreesWithTokenizers) {
  std::ifstream in("tests/data/pretokenize.json", std::ios::binary);
  const auto stored = nlohmann::json::parse(in, nullptr, false);
  ASSERT_TRUE(stored.is_object());
  const auto texts = stored.at("texts").get<std::vector<std::string>>();
  ASSERT_GT(texts.size(), 80u);
  ASSERT_EQ(stored.at("words").size(), 10u);
  for (const auto& [name, rows] : stored.at("words").items()) {
    ASSERT_EQ(rows.size(), texts.size()) << name;
    for (size_t i = 0; i < texts.size(); ++i) {
      std::vector<size_t> lengths;
      for (const std::string& word : words(name, texts[i])) lengths.push_back(word.size());
      EXPECT_EQ(lengths, rows[i].get<std::vector<size_t>>()) << name << ": " << texts[i];
    }
  }
}

TEST(PreTokenize, SpacesAreUnicodes) {
  EXPECT_THAT(words("gpt-2", "a\u00a0\u3000b"), ElementsAre("a", "\u00a0", "\u3000", "b"));
  EXPECT_THAT(words("gpt-2", "a\u0085\u0085b"), ElementsAre("a", "\u0085", "\u0085", "b"));
  EXPECT_THAT(words("gpt-2", "a\u180e\u180eb"),
              ElementsAre("a", "\u180e\u180e", "b"));  // a format character
  EXPECT_THAT(words("gpt-2", "a\u200bb"), ElementsAre("a", "\u200b", "b"));
}

TEST(PreTokenize, LongRunsStayWithinTheLimits) {
  const size_t n = size_t{1} << 20;
  for (const std::string_view name :
       {"bloom", "viking", "tekken", "gpt-4o", "seed-coder", "deepseek-coder"}) {
    for (const char c : {'a', 'A', ' ', '\n', '.'}) {
      size_t n_bytes = 0;
      for (const std::string& word : words(name, std::string(n, c) + "b")) n_bytes += word.size();
      EXPECT_EQ(n_bytes, n + 1) << name;
    }
  }
  for (const std::string_view name :
       {"gpt-2", "smollm", "llama-bpe", "qwen2", "falcon", "default"}) {
    EXPECT_THAT(words(name, std::string(n, 'a')), ElementsAre(std::string(n, 'a'))) << name;
    EXPECT_THAT(words(name, std::string(n, ' ') + "a"), ElementsAre(std::string(n - 1, ' '), " a"))
        << name;
    std::string wide, marks;
    for (size_t i = 0; i < n / 4; ++i) wide += "\u6f22", marks += "\U0001f600";
    EXPECT_THAT(words(name, wide), ElementsAre(wide)) << name;
    EXPECT_THAT(words(name, marks), ElementsAre(marks)) << name;
  }
  EXPECT_THAT(words("llama-bpe", std::string(n, '\n') + std::string(n, ' ')),
              ElementsAre(std::string(n, '\n'), std::string(n, ' ')));
}

/// A file's rules may put a space before every letter again and again.
TEST(PreTokenize, TextsDoNotGrowWithoutBound) {
  const auto run = [](size_t n_times, std::string& error) {
    std::vector<text::PreRule> rules;
    for (size_t i = 0; i < n_times; ++i) {
      rules.push_back({.pattern = "[\\s\\S]"});
      rules.push_back({.kind = text::PreRule::Kind::kPrefixSpace});
    }
    rules.push_back({.kind = text::PreRule::Kind::kByteLetters});
    const auto pre = PreTokenizer::compile(rules, /*trusted=*/false);
    EXPECT_TRUE(pre.ok()) << pre.error().message;
    PreTokenizer::Scratch scratch;
    std::vector<std::string_view> found;
    const auto done = pre->split(std::string(1000, 'a'), scratch, found);
    error = done.ok() ? "" : done.error().message;
    return found.size();
  };
  std::string error;
  EXPECT_EQ(run(1, error), 1000U);
  EXPECT_EQ(error, "");
  EXPECT_EQ(run(2, error), 2000U);
  EXPECT_EQ(error, "");
  run(15, error);
  EXPECT_EQ(error, "pre-tokenizer rule 'prefix_space' makes the text too long: above 8000 bytes");
  run(7, error);  // 8 times as long, and each space of two bytes
  EXPECT_EQ(error, "pre-tokenizer rule 'byte_letters' makes the text too long: above 8000 bytes");
}

TEST(PreTokenize, UnknownNameIsNamed) {
  auto def = text::find_pre_tokenizer("klingon", "model.gguf");
  ASSERT_FALSE(def.ok());
  EXPECT_EQ(def.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(def.error().message, HasSubstr("model.gguf: tokenizer.ggml.pre = 'klingon'"));
}

TEST(Unicode, StandInsAreABijection) {
  std::vector<int> seen(1024, -1);
  for (int b = 0; b < 256; ++b) {
    const uint32_t cp = text::byte_to_stand_in(static_cast<uint8_t>(b));
    ASSERT_LT(cp, seen.size());
    EXPECT_EQ(seen[cp], -1);
    seen[cp] = b;
    EXPECT_EQ(text::stand_in_to_byte(cp), b);
  }
  EXPECT_EQ(text::stand_in_to_byte(' '), -1);
  EXPECT_EQ(text::stand_in_to_byte(0xffffffff), -1);
}

TEST(Unicode, EveryScalarValueIsWellFormedAndNoOther) {
  for (uint32_t cp = 0; cp < 0x110000; ++cp) {
    std::string s;
    text::append_utf8(s, cp);
    const text::Utf8Step step = text::utf8_step(s, 0);
    const bool surrogate = cp >= 0xd800 && cp < 0xe000;
    ASSERT_EQ(step.kind == text::Utf8Kind::kOk, !surrogate) << cp;
    ASSERT_TRUE(surrogate || (step.len == s.size() && step.cp == cp)) << cp;
  }
}

TEST(Unicode, Nfc) {
  std::string out = "<";
  ASSERT_TRUE(text::append_normalized(out, std::string_view("e\u0301 \u1100\u1161\0x", 12),
                                      text::NormalForm::kNfc));
  EXPECT_EQ(out, std::string("<\u00e9 \uac00\0x", 9));
}

}  // namespace
}  // namespace infer::test
