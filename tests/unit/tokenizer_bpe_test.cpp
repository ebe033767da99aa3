#include <ctime>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/tiny_vocab.h"

namespace infer::test {
namespace {

using testing::ElementsAre;
using text::TokenId;
using text::Tokenizer;

std::shared_ptr<const Tokenizer> must_load(const GgufImage& image) {
  auto t = load_tokenizer(image);
  EXPECT_TRUE(t.ok()) << t.error().message;
  return t.ok() ? *t : nullptr;
}

std::vector<TokenId> ids_of(const Tokenizer& t, std::string_view text) {
  auto ids = t.encode(text, {.add_special = false, .parse_special = false});
  EXPECT_TRUE(ids.ok()) << ids.error().message;
  return ids.ok() ? *ids : std::vector<TokenId>{-1};
}

/// Tokens by spelling, for expectations that can be read.
std::vector<std::string> pieces_of(const Tokenizer& t, std::string_view text) {
  std::vector<std::string> out;
  for (const TokenId id : ids_of(t, text)) out.emplace_back(t.piece(id));
  return out;
}

TEST(TokenizerBpe, LowestRankFirst) {
  const auto t = must_load(tiny_bpe("gpt-2", {"b c", "a b", "ab c"}));
  EXPECT_THAT(pieces_of(*t, "abc"), ElementsAre("a", "bc"));
}

TEST(TokenizerBpe, LeftmostAmongEqualRanks) {
  const auto t = must_load(tiny_bpe("gpt-2", {"a a"}));
  EXPECT_THAT(pieces_of(*t, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(pieces_of(*t, "aaaaa"), ElementsAre("aa", "aa", "a"));
}

TEST(TokenizerBpe, SameTokenFromTwoMerges) {
  const auto t = must_load(tiny_bpe("gpt-2", {"a b", "b c", "ab c", "a bc"}));
  EXPECT_THAT(pieces_of(*t, "abc"), ElementsAre("abc"));
  EXPECT_THAT(pieces_of(*t, "bcabc"), ElementsAre("bc", "abc"));
}

TEST(TokenizerBpe, RepeatedMergeKeepsItsFirstRank) {
  const auto t = must_load(tiny_bpe("gpt-2", {"a b", "b c", "a b"}));
  EXPECT_THAT(pieces_of(*t, "abc"), ElementsAre("ab", "c"));
}

TEST(TokenizerBpe, IgnoreMergesTakesWholeWords) {
  // "xyz" cannot be reached by merges.
  const std::vector<ExtraToken> extra = {{"xyz", text::TokenKind::kNormal}, {"<s>"}};
  GgufImage plain = tiny_bpe("gpt-2", {"x y"}, extra);
  GgufImage whole = tiny_bpe("llama-bpe", {"x y"}, extra);
  whole.set("tokenizer.ggml.bos_token_id", uint32_t{258});
  EXPECT_THAT(pieces_of(*must_load(plain), "xyz"), ElementsAre("xy", "z"));
  EXPECT_THAT(pieces_of(*must_load(whole), "xyz"), ElementsAre("xyz"));
}

/// The definition, literally: look through all pairs, join the best, again.
std::vector<std::string> reference_bpe(
    std::string_view word, const std::map<std::pair<std::string, std::string>, int>& ranks) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    int best = std::numeric_limits<int>::max();
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = ranks.find({parts[i], parts[i + 1]});
      if (it != ranks.end() && it->second < best) best = it->second, at = i;
    }
    if (best == std::numeric_limits<int>::max()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(TokenizerBpe, RandomMergesAgreeWithTheDefinition) {
  uint32_t state = 12345;
  const auto below = [&](uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % n;
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> known = {"a", "b", "c"}, merges;
    std::map<std::pair<std::string, std::string>, int> ranks;
    for (int i = 0; i < 30; ++i) {
      const std::string left = known[below(static_cast<uint32_t>(known.size()))];
      const std::string right = known[below(static_cast<uint32_t>(known.size()))];
      if (left.size() + right.size() > 12) continue;
      if (!ranks.emplace(std::pair(left, right), static_cast<int>(merges.size())).second) continue;
      merges.push_back(left + ' ' + right);
      known.push_back(left + right);
    }
    const auto t = must_load(tiny_bpe("gpt-2", merges));
    ASSERT_NE(t, nullptr);
    for (const uint32_t length :
         {1u, 2u, 3u, 7u, 20u, 47u, 48u, 49u, 50u, 200u}) {  // 48 is where the heap takes over
      std::string word;
      while (word.size() < length) word += static_cast<char>('a' + below(3));
      EXPECT_EQ(pieces_of(*t, word), reference_bpe(word, ranks))
          << "round " << round << ", '" << word << "'";
    }
  }
}

TEST(TokenizerBpe, AMegabyteOfOneLetterIsQuick) {
  const auto t = must_load(tiny_bpe("gpt-2", {"a a", "aa aa", "aaaa aaaa", "aaaaaaaa aaaaaaaa"}));
  const std::string word(size_t{1} << 20, 'a');
  const std::clock_t start = std::clock();
  EXPECT_EQ(ids_of(*t, word).size(), word.size() / 16);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds,
            20.0);  // n log n takes a fraction of a second, n^2 hours; sanitizers slow it down
}

TEST(TokenizerBpe, AnyBytesComeBack) {
  const auto t = must_load(
      tiny_bpe("gpt-2", {"\u0120 t", "h e", "\u0120t he", "\u00c3 \u00a9", "\u00f0 \u0141"}));
  uint32_t state = 7;
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < round; ++i) {
      state = state * 1664525u + 1013904223u;
      bytes += static_cast<char>(state >> 24);
    }
    EXPECT_EQ(t->decode(ids_of(*t, bytes)), bytes) << "round " << round;
  }
}

TEST(TokenizerBpe, IllFormedBytesAreAWordOfTheirOwn) {
  const auto t = must_load(tiny_bpe("gpt-2", {"\u00c3 a", "\u00f0 \u0141"}));
  // c3 is cut off: its merge with the letter after it lies across a word border; f0 9f join inside
  // their word.
  EXPECT_THAT(ids_of(*t,
                     "\xc3"
                     "a"),
              ElementsAre(0xc3, 'a'));
  EXPECT_THAT(pieces_of(*t, "x\xf0\x9f"), ElementsAre("x", "\xf0\x9f"));
}

TEST(TokenizerBpe, ByteWithoutATokenBecomesUnknown) {
  GgufImage image = tiny_bpe("gpt-2", {}, {{"<unk>", text::TokenKind::kUnknown}});
  auto tokens = std::get<std::vector<std::string>>(*image.find("tokenizer.ggml.tokens"));
  tokens['q'] = "unreachable";
  image.set("tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(ids_of(*must_load(image), "aqb"), ElementsAre('a', 'b'));
  image.set("tokenizer.ggml.unknown_token_id", uint32_t{256});
  EXPECT_THAT(ids_of(*must_load(image), "aqb"), ElementsAre('a', 256, 'b'));
}

TEST(TokenizerBpe, BosAndEosAsTheFileAsks) {
  GgufImage image = tiny_bpe("gpt-2", {}, {{"<s>"}, {"</s>"}});
  image.set("tokenizer.ggml.bos_token_id", uint32_t{256});
  image.set("tokenizer.ggml.eos_token_id", uint32_t{257});
  EXPECT_THAT(*must_load(image)->encode("a"), ElementsAre('a'));
  image.set("tokenizer.ggml.add_bos_token", true);
  image.set("tokenizer.ggml.add_eos_token", true);
  EXPECT_THAT(*must_load(image)->encode("a"), ElementsAre(256, 'a', 257));
  EXPECT_THAT(*must_load(image)->encode(""), ElementsAre(256, 257));
  EXPECT_THAT(*must_load(image)->encode("a", {.add_special = false}), ElementsAre('a'));
}

}  // namespace
}  // namespace infer::test
