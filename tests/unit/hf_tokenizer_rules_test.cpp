#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/onig_pattern.h"
#include "core/text/pretokenize.h"
#include "core/text/unicode.h"
#include "gguf/keys.h"
#include "quantize/convert/hf_tokenizer_pre.h"
#include "tests/support/hf_tokenizer_case.h"

namespace infer::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using text::PreTokenizer;

std::vector<std::string> letters(const std::vector<std::string_view>& words) {
  std::vector<std::string> out;
  for (const std::string_view word : words) text::append_stand_ins(out.emplace_back(), word);
  return out;
}

/// The words of `tokenizers` (tests/data/make_hf_tokenizer.py), for the rules as they are read off
/// tokenizer.json and for the name that they are written under.
TEST(HfTokenizerRules, WordsAreThoseOfTokenizers) {
  const json stored = stored_hf_tokenizer();
  ASSERT_TRUE(stored.is_object());
  const auto texts = stored.at("texts").get<std::vector<std::string>>();
  ASSERT_GT(stored.at("rules").size(), 30u);
  for (const json& rule : stored.at("rules")) {
    const auto what = rule.at("what").get<std::string>();
    auto plan = quantize::read_byte_plan({{"pre_tokenizer", rule.at("pre_tokenizer")}}, what);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    auto pre = PreTokenizer::compile(plan->rules, /*trusted=*/false);
    ASSERT_TRUE(pre.ok()) << pre.error().message;
    PreTokenizer::Scratch scratch;
    std::vector<std::string_view> words;
    size_t n_wrong = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto done = pre->split(texts[i], scratch, words);
      ASSERT_TRUE(done.ok()) << what << ": " << done.error().message;
      const auto expected = rule.at("words").at(i).get<std::vector<std::string>>();
      if (letters(words) == expected || ++n_wrong > 2) continue;
      EXPECT_EQ(letters(words), expected) << what << ": " << texts[i];
    }
    EXPECT_EQ(n_wrong, 0u) << what;
  }
}

TEST(HfTokenizerRules, KnownRulesGetTheirName) {
  const json stored = stored_hf_tokenizer();
  ASSERT_TRUE(stored.is_object());
  for (const json& rule : stored.at("rules")) {
    const auto what = rule.at("what").get<std::string>();
    auto plan = quantize::read_byte_plan({{"pre_tokenizer", rule.at("pre_tokenizer")}}, what);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    gguf::HeaderBuilder out("model.gguf");
    std::vector<std::string> notes;
    ASSERT_TRUE(quantize::write_byte_plan(*plan, rule.at("ignore_merges"), out, notes).ok());
    auto bytes = out.encode();
    ASSERT_TRUE(bytes.ok());
    auto file = gguf::Reader::parse(*bytes, "model.gguf", {.header_only = true});
    ASSERT_TRUE(file.ok());
    EXPECT_EQ(*(*file)->get_string("tokenizer.ggml.pre"), rule.at("pre").get<std::string>())
        << what;
    const bool exact = rule.at("exact");
    EXPECT_EQ((*file)->find(gguf::keys::kInferPreRules) == nullptr, exact) << what;
    EXPECT_EQ(notes.empty(), exact) << what;
    // What is read back cuts as the plan does.
    auto spec = text::read_pre_spec(**file, rule.at("pre").get<std::string>());
    ASSERT_TRUE(spec.ok()) << spec.error().message;
    EXPECT_EQ(spec->ignore_merges, rule.at("ignore_merges").get<bool>()) << what;
    if (exact) continue;
    EXPECT_EQ(spec->rules, plan->rules) << what;
  }
}

TEST(HfTokenizerRules, MergesThatTheNameDoesNotMeanAreSaid) {
  const json qwen = {{"pre_tokenizer", stored_hf_tokenizer().at("rules").at(4).at("pre_tokenizer")},
                     {"normalizer", {{"type", "NFC"}}}};
  auto plan = quantize::read_byte_plan(qwen, "x");
  ASSERT_TRUE(plan.ok());
  gguf::HeaderBuilder out("model.gguf");
  std::vector<std::string> notes;
  ASSERT_TRUE(quantize::write_byte_plan(*plan, /*ignore_merges=*/true, out, notes).ok());
  auto bytes = out.encode();
  auto file = gguf::Reader::parse(*bytes, "model.gguf", {.header_only = true});
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*(*file)->get_string("tokenizer.ggml.pre"), "qwen2");
  EXPECT_EQ(notes.size(), 2u);
  auto spec = text::read_pre_spec(**file, "qwen2");
  ASSERT_TRUE(spec.ok());
  EXPECT_TRUE(spec->ignore_merges);
  EXPECT_FALSE(spec->from_file);
  EXPECT_EQ(spec->forms, std::vector{text::NormalForm::kNfc});
}

TEST(HfTokenizerRules, StepsThatCannotBeKeptAreNamed) {
  const auto error = [](const json& root) {
    auto plan = quantize::read_byte_plan(root, "dir/tokenizer.json");
    return plan.ok() ? std::string() : plan.error().message;
  };
  EXPECT_EQ(error({{"normalizer", {{"type", "Lowercase"}}}}),
            "dir/tokenizer.json: normalizer 'Lowercase' is not supported");
  EXPECT_EQ(error({{"pre_tokenizer", {{"type", "UnicodeScripts"}}}}),
            "dir/tokenizer.json: pre_tokenizer 'UnicodeScripts' is not supported");
  EXPECT_THAT(
      error({{"pre_tokenizer",
              {{"type", "Split"}, {"pattern", {{"Regex", "(a)\\1"}}}, {"behavior", "Isolated"}}}}),
      HasSubstr("dir/tokenizer.json: pre-tokenizer rule '(a)\\1'"));
  EXPECT_THAT(error({{"pre_tokenizer", {{"type", "Split"}, {"behavior", "Isolated"}}}}),
              HasSubstr("has no pattern"));
  EXPECT_THAT(
      error({{"pre_tokenizer",
              {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Sideways"}}}}),
      HasSubstr("has no behavior"));
}

TEST(HfTokenizerRules, HostilePatternsAreRefused) {
  for (const char* pattern : {"(",
                              ")",
                              "[",
                              "[]",
                              "a**b(",
                              "(?R)",
                              "(?1)",
                              "(?P<a>b)",
                              "(?(1)a|b)",
                              "(*ACCEPT)",
                              "(?C1)a",
                              "\\K",
                              "\\G",
                              "\\1",
                              "\\k<a>",
                              "\\Qa",
                              "\\p{",
                              "\\p{../}",
                              "[a-",
                              "[b-a]",
                              "[\\]",
                              "[[:nope:]]",
                              "\\x{110000}",
                              "\\x{d800}",
                              "\\xff",
                              "\\",
                              "a{2}?",
                              "?",
                              "+a",
                              "[a&&]",
                              "(?<n>a)\\g<n>",
                              "a(?i)b",
                              "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[a]"}) {
    EXPECT_FALSE(text::pcre2_from_onig(pattern).ok()) << pattern;
  }
  EXPECT_FALSE(text::pcre2_from_onig(std::string(9000, 'a')).ok());
  EXPECT_FALSE(text::pcre2_from_onig(std::string(100, '(') + std::string(100, ')')).ok());
  EXPECT_FALSE(text::pcre2_from_onig("\xff").ok());
  EXPECT_EQ(*text::pcre2_from_onig("[a[bc]\\x64-f]{,3}"), "[abcd-f]{0,3}");
  EXPECT_EQ(*text::pcre2_from_onig("a{1,2}+"), "(?:a{1,2})+");
  EXPECT_EQ(*text::pcre2_from_onig("a{x}"), "a\\{x\\}");
}

/// Nested repeats that a backtracking engine needs exponential time for.
TEST(HfTokenizerRules, BlowUpIsAnError) {
  const text::PreRule rule{.pattern = "(?:(?:a+)+)+b"};
  auto pre = PreTokenizer::compile({&rule, 1}, /*trusted=*/false);
  ASSERT_TRUE(pre.ok()) << pre.error().message;
  PreTokenizer::Scratch scratch;
  std::vector<std::string_view> words;
  EXPECT_FALSE(pre->split(std::string(64, 'a') + "c b", scratch, words).ok());
  const text::PreRule huge{.pattern = "(?:(?:(?:(?:a{1000}){1000}){1000}){1000}){1000}"};
  EXPECT_FALSE(PreTokenizer::compile({&huge, 1}, /*trusted=*/false).ok());
}

TEST(HfTokenizerRules, LinesComeBack) {
  for (const char* line :
       {"prefix_space", "byte_letters", "split isolated \\p{N}", "split !removed  a b",
        "split merged_with_previous x", "split !merged_with_next [ ]", "split contiguous "}) {
    auto rule = text::parse_pre_rule(line);
    ASSERT_TRUE(rule.ok()) << line;
    EXPECT_EQ(text::to_string(*rule), line);
  }
  for (const char* line : {"", "split", "split isolated", "split sideways a", "Split isolated a"})
    EXPECT_FALSE(text::parse_pre_rule(line).ok()) << line;
}

}  // namespace
}  // namespace infer::test
