#include <ctime>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/tokenizer.h"
#include "tests/support/tiny_vocab.h"

namespace infer::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using text::TokenId;
using text::Tokenizer;
using text::TokenKind;

constexpr TokenId kFirstByte = 3;

std::shared_ptr<const Tokenizer> must_load(const GgufImage& image) {
  auto t = load_tokenizer(image);
  EXPECT_TRUE(t.ok()) << t.error().message;
  return t.ok() ? *t : nullptr;
}

std::vector<TokenId> ids_of(const Tokenizer& t, std::string_view text, bool parse_special = false) {
  auto ids = t.encode(text, {.add_special = false, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.error().message;
  return ids.ok() ? *ids : std::vector<TokenId>{-1};
}

std::vector<std::string> pieces_of(const Tokenizer& t, std::string_view text,
                                   bool parse_special = false) {
  std::vector<std::string> out;
  for (const TokenId id : ids_of(t, text, parse_special)) out.emplace_back(t.piece(id));
  return out;
}

const std::vector<std::pair<std::string, float>> kLetters = {
    {"\u2581", -1}, {"a", -2},  {"b", -3},        {"c", -4},
    {"ab", -10},    {"bc", -9}, {"\u2581a", -11}, {"\u2581ab", -20}};

TEST(TokenizerSpm, HighestScoreFirstThenLeftmost) {
  GgufImage image = tiny_spm({{"a", -1}, {"b", -1}, {"c", -1}, {"ab", -3}, {"bc", -2}, {"aa", -5}});
  image.set("tokenizer.ggml.add_space_prefix", false);
  const auto t = must_load(image);
  EXPECT_THAT(pieces_of(*t, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(pieces_of(*t, "aaa"), ElementsAre("aa", "a"));
}

TEST(TokenizerSpm, SpacePrefixOnlyWhereAsked) {
  GgufImage image = tiny_spm(kLetters);
  EXPECT_THAT(pieces_of(*must_load(image), "a"), ElementsAre(" a"));
  EXPECT_EQ(must_load(image)->decode(ids_of(*must_load(image), "a b")), "a b");
  image.set("tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(pieces_of(*must_load(image), "a"), ElementsAre("a"));
  EXPECT_EQ(must_load(image)->decode(ids_of(*must_load(image), " a")), " a");
}

TEST(TokenizerSpm, SpaceAfterASpecialTokenToo) {
  const auto t = must_load(tiny_spm(kLetters));
  EXPECT_THAT(pieces_of(*t, "b<s>a", true), ElementsAre(" ", "b", "<s>", " a"));
}

TEST(TokenizerSpm, DefaultsOfTheModelWhenKeysAreMissing) {
  const auto t = must_load(tiny_spm(kLetters));
  EXPECT_TRUE(t->special().add_bos);
  EXPECT_FALSE(t->special().add_eos);
  EXPECT_TRUE(t->special().add_space_prefix);
  EXPECT_THAT(*t->encode(""), ElementsAre(1));
  EXPECT_THAT(*t->encode("", {.add_special = false}), IsEmpty());
}

TEST(TokenizerSpm, UnknownCharactersFallBackToBytes) {
  GgufImage image = tiny_spm(kLetters);
  image.set("tokenizer.ggml.add_space_prefix", false);
  const auto t = must_load(image);
  EXPECT_THAT(ids_of(*t, "\u00e9"), ElementsAre(kFirstByte + 0xc3, kFirstByte + 0xa9));
  for (const std::string bytes : {"a\xff"
                                  "b",
                                  "\xe2\x82", "\x80\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_EQ(t->decode(ids_of(*t, bytes)), bytes);
  }
}

TEST(TokenizerSpm, WithoutByteTokensOneUnknownForARun) {
  GgufImage image = tiny_spm({});
  image.set("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "</s>", "a"});
  image.set("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1});
  image.set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1});
  image.set("tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(ids_of(*must_load(image), "ax\u00e9ya"), ElementsAre(3, 0, 3));
}

TEST(TokenizerSpm, TextNeverBecomesAControlToken) {
  GgufImage image = tiny_spm({{"<", -1}, {"s", -1}, {">", -1}, {"<s", -2}});
  image.set("tokenizer.ggml.add_space_prefix", false);
  const auto t = must_load(image);
  EXPECT_THAT(pieces_of(*t, "<s>"), ElementsAre("<s", ">"));
  EXPECT_THAT(ids_of(*t, "<s>", true), ElementsAre(1));
}

TEST(TokenizerSpm, UserDefinedTokensMatchBeforeEverything) {
  GgufImage image =
      tiny_spm(kLetters, {{"bc<", TokenKind::kUserDefined}, {"   ", TokenKind::kUserDefined}});
  image.set("tokenizer.ggml.add_space_prefix", false);
  const auto t = must_load(image);
  EXPECT_THAT(pieces_of(*t, "abc<"), ElementsAre("a", "bc<"));
  EXPECT_THAT(pieces_of(*t, "    a"), ElementsAre("   ", " a"));
  EXPECT_THAT(pieces_of(*t, "\u2581\u2581 a"),
              ElementsAre("   ", "a"));  // U+2581 is a space to SentencePiece
}

TEST(TokenizerSpm, TokensAcrossAWordBorder) {
  // ">\u2581a" keeps the text from being cut before the space after '>', and only there.
  GgufImage image = tiny_spm(
      {{"\u2581", -1}, {"a", -2}, {">", -3}, {"\u2581a", -4}, {">\u2581a", -5}, {"b", -6}});
  image.set("tokenizer.ggml.add_space_prefix", false);
  const auto t = must_load(image);
  EXPECT_THAT(pieces_of(*t, "> a"), ElementsAre("> a"));
  EXPECT_THAT(pieces_of(*t, "b a> ab"), ElementsAre("b", " a", "> a", "b"));
}

TEST(TokenizerSpm, ExtraSpacesGoWhereTheFileSaysSo) {
  GgufImage image = tiny_spm(kLetters);
  image.set("tokenizer.ggml.remove_extra_whitespaces", true);
  const auto t = must_load(image);
  EXPECT_THAT(pieces_of(*t, "  a   b  "), ElementsAre(" a", " ", "b"));
  EXPECT_THAT(pieces_of(*t, "   "), IsEmpty());
}

TEST(TokenizerSpm, AMegabyteWithoutSpacesIsQuick) {
  const auto t = must_load(tiny_spm({{"a", -1}, {"aa", -2}, {"aaaa", -3}, {"aaaaaaaa", -4}}));
  const std::clock_t start = std::clock();
  EXPECT_EQ(ids_of(*t, std::string(size_t{1} << 20, 'a')).size(),
            (1u << 17) + 3);  // three bytes of the prefix
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20.0);
}

}  // namespace
}  // namespace infer::test
