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

std::shared_ptr<const Tokenizer> must_load(const GgufImage& image) {
  auto t = load_tokenizer(image);
  EXPECT_TRUE(t.ok()) << t.error().message;
  return t.ok() ? *t : nullptr;
}

std::vector<std::string> pieces_of(const Tokenizer& t, std::string_view text,
                                   bool parse_special = true) {
  std::vector<std::string> out;
  auto ids = t.encode(text, {.add_special = false, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.error().message;
  if (!ids.ok()) return out;
  for (const TokenId id : *ids) out.emplace_back(t.piece(id));
  return out;
}

TEST(TokenizerSpecial, ControlTokensOnlyWhenAsked) {
  const auto t = must_load(tiny_bpe(
      "gpt-2", {}, {{"<c>"}, {"<u>", TokenKind::kUserDefined}, {"<k>", TokenKind::kUnknown}}));
  EXPECT_THAT(pieces_of(*t, "a<c>b<u><k>"), ElementsAre("a", "<c>", "b", "<u>", "<k>"));
  EXPECT_THAT(pieces_of(*t, "<c><u>", false), ElementsAre("<", "c", ">", "<u>"));
  EXPECT_THAT(pieces_of(*t, "<k>", false), ElementsAre("<", "k", ">"));
}

TEST(TokenizerSpecial, LongestAtOnePlace) {
  const auto t = must_load(tiny_bpe("gpt-2", {}, {{"<a"}, {"<a>"}, {"<a><b"}}));
  EXPECT_THAT(pieces_of(*t, "<a><a><b<a"), ElementsAre("<a>", "<a><b", "<a"));
}

TEST(TokenizerSpecial, LongestWinsOverLeftmost) {
  const auto t = must_load(tiny_bpe("gpt-2", {}, {{"[ab"}, {"b]cd"}}));
  EXPECT_THAT(pieces_of(*t, "[ab]cd"), ElementsAre("[", "a", "b]cd"));
  EXPECT_THAT(pieces_of(*t, "[ab]ce"), ElementsAre("[ab", "]", "c", "e"));
}

TEST(TokenizerSpecial, AHiddenLongerTokenDoesNotShadow) {
  const auto t = must_load(tiny_bpe("gpt-2", {}, {{"<u>!"}, {"<u>", TokenKind::kUserDefined}}));
  EXPECT_THAT(pieces_of(*t, "<u>!", false), ElementsAre("<u>", "!"));
  EXPECT_THAT(pieces_of(*t, "<u>!", true), ElementsAre("<u>!"));
}

TEST(TokenizerSpecial, RunsOfSpaces) {
  const auto t = must_load(tiny_bpe("mpt", {},
                                    {{"  ", TokenKind::kUserDefined},
                                     {"   ", TokenKind::kUserDefined},
                                     {"    ", TokenKind::kUserDefined}}));
  EXPECT_THAT(pieces_of(*t, std::string(11, ' ') + "x", false),
              ElementsAre("    ", "    ", "   ", "x"));
  EXPECT_THAT(pieces_of(*t, std::string(5, ' ') + "x", false), ElementsAre("    ", " ", "x"));
}

TEST(TokenizerSpecial, LongRunsAreQuick) {
  std::vector<ExtraToken> runs;
  for (size_t n = 1; n <= 31; ++n) runs.push_back({std::string(n, '\n'), TokenKind::kUserDefined});
  const auto t = must_load(tiny_bpe("gpt-2", {}, runs));
  const std::clock_t start = std::clock();
  EXPECT_EQ(pieces_of(*t, std::string(31 * 20'000, '\n'), false).size(), 20'000u);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20.0);
}

TEST(TokenizerSpecial, Phi3TokensSwallowWhiteSpace) {
  GgufImage image =
      tiny_spm({{"\u2581", -1}, {"a", -2}, {"\u2581a", -3}}, {{"<|user|>"}, {"<|endoftext|>"}});
  image.set("general.name", std::string("Phi-3 mini"));
  EXPECT_THAT(pieces_of(*must_load(image), "<|user|> \n a"), ElementsAre("<|user|>", " a"));
  EXPECT_THAT(pieces_of(*must_load(image), "<|endoftext|> a"),
              ElementsAre("<|endoftext|>", " ", " a"));
  image.set("general.name", std::string("Fi"));
  EXPECT_THAT(pieces_of(*must_load(image), "<|user|> a"), ElementsAre("<|user|>", " ", " a"));
  // A list goes before the name.
  const int32_t user = must_load(image)->find("<|user|>");
  image.set("infer.tokenizer.strips_right", std::vector<int32_t>{user});
  EXPECT_THAT(pieces_of(*must_load(image), "<|user|>\u3000 a"), ElementsAre("<|user|>", " a"));
  image.set("general.name", std::string("Phi-3 mini"));
  image.set("infer.tokenizer.strips_right", std::vector<int32_t>{});
  EXPECT_THAT(pieces_of(*must_load(image), "<|user|> a"), ElementsAre("<|user|>", " ", " a"));
  image.set("infer.tokenizer.strips_right", std::vector<int32_t>{user, 999});
  const auto bad = load_tokenizer(image);
  ASSERT_FALSE(bad.ok());
  EXPECT_THAT(bad.error().message, testing::HasSubstr("infer.tokenizer.strips_right[1] = 999 is "
                                                      "outside the vocabulary of"));
}

/// What is swallowed is whole characters, and never bytes of another token.
TEST(TokenizerSpecial, SwallowedSpacesDoNotOverlapTokens) {
  GgufImage image = tiny_bpe("gpt-2", {}, {{"=="}, {"\x80\x80!", TokenKind::kUserDefined}});
  image.set("infer.tokenizer.strips_right", std::vector<int32_t>{256});
  EXPECT_THAT(pieces_of(*must_load(image), "==\u3000!a"),
              ElementsAre("==", "\xe3", "\x80\x80!", "a"));
  EXPECT_THAT(pieces_of(*must_load(image), "==\u2003 a"), ElementsAre("==", "a"));
}

TEST(TokenizerSpecial, DecodeHidesControlTokens) {
  const auto t = must_load(tiny_bpe("gpt-2", {}, {{"<c>"}, {"<u>", TokenKind::kUserDefined}}));
  const std::vector<TokenId> ids = {'a', 256, 257, 'b', -1, 9999};
  EXPECT_EQ(t->decode(ids), "a<u>b");
  EXPECT_EQ(t->decode(ids, true), "a<c><u>b");
  EXPECT_EQ(t->piece(-1), "");
  EXPECT_EQ(t->piece(9999), "");
}

TEST(TokenizerEog, KnownSpellingsAndKeys) {
  GgufImage image = tiny_bpe(
      "gpt-2", {}, {{"<|im_start|>"}, {"<|im_end|>"}, {"<|endoftext|>"}, {"<|eom_id|>"}, {"<x>"}});
  image.set("tokenizer.ggml.eos_token_id", uint32_t{260});
  const auto t = must_load(image);
  EXPECT_THAT(t->eog_ids(), ElementsAre(257, 258, 259, 260));
  EXPECT_EQ(t->special().eot, 257);
  EXPECT_EQ(t->special().eom, 259);
  EXPECT_TRUE(t->is_eog(257));
  EXPECT_FALSE(t->is_eog(256));
  EXPECT_FALSE(t->is_eog(-1));
  EXPECT_FALSE(t->is_eog(100'000));
}

TEST(TokenizerEog, MislabelledTokensAreControl) {
  const auto t = must_load(tiny_bpe("gpt-2", {}, {{"<|im_end|>", TokenKind::kUserDefined}}));
  EXPECT_THAT(t->eog_ids(), ElementsAre(256));
  EXPECT_EQ(t->kind(256), TokenKind::kControl);
}

TEST(TokenizerEog, MarkUpThatOnlyLooksLikeAnEnd) {
  const auto html = must_load(tiny_bpe("gpt-2", {}, {{"</s>", TokenKind::kUserDefined}}));
  EXPECT_THAT(html->eog_ids(), IsEmpty());
  const auto control = must_load(tiny_bpe("gpt-2", {}, {{"</s>"}}));
  EXPECT_THAT(control->eog_ids(), ElementsAre(256));
}

TEST(TokenizerEog, EndOfAChannelIsNotTheEnd) {
  const auto t = must_load(
      tiny_bpe("gpt-2", {}, {{"<|end|>"}, {"<|return|>"}, {"<|call|>"}, {"<|channel|>"}}));
  EXPECT_THAT(t->eog_ids(), ElementsAre(257, 258));
  EXPECT_EQ(t->kind(256), TokenKind::kUserDefined);
  EXPECT_EQ(t->kind(259), TokenKind::kUserDefined);
}

}  // namespace
}  // namespace infer::test
