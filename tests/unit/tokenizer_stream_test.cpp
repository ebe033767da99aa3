#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/gguf_alloc_counter.h"
#include "tests/support/tiny_vocab.h"

namespace infer::test {
namespace {

using testing::ElementsAre;
using text::StreamDecoder;
using text::TokenId;
using text::Tokenizer;

/// Ids 0..255 are bytes.
std::shared_ptr<const Tokenizer> byte_tokenizer() {
  auto t =
      load_tokenizer(tiny_bpe("gpt-2", {"\u00f0 \u0141", "\u00f0\u0141 \u013a"}, {{"<|im_end|>"}}));
  EXPECT_TRUE(t.ok()) << t.error().message;
  return t.ok() ? *t : nullptr;
}

std::vector<std::string> push_bytes(StreamDecoder& stream, std::string_view bytes) {
  std::vector<std::string> out;
  for (const char c : bytes) out.emplace_back(stream.push(static_cast<uint8_t>(c)));
  out.emplace_back(stream.finish());
  return out;
}

TEST(StreamDecoder, HoldsBackHalfACharacter) {
  const auto t = byte_tokenizer();
  StreamDecoder stream(*t, false);
  EXPECT_THAT(push_bytes(stream, "a\u00e9"), ElementsAre("a", "", "\u00e9", ""));
  EXPECT_THAT(push_bytes(stream, "\U0001f600!"), ElementsAre("", "", "", "\U0001f600", "!", ""));
  EXPECT_THAT(push_bytes(stream, "\xe2\x82"), ElementsAre("", "", "\ufffd"));
  EXPECT_EQ(stream.push(257), "");  // f0 9f 98 in one token
  EXPECT_EQ(stream.push(0x80), "\U0001f600");
}

TEST(StreamDecoder, OneReplacementForEachMaximalPart) {
  const auto t = byte_tokenizer();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\x80", "\ufffd"},
      {"\xbf\xbf", "\ufffd\ufffd"},
      {"abc\xc3", "abc\ufffd"},
      {"\xc3(", "\ufffd("},
      {"\xe2\x82 and", "\ufffd and"},
      {"\xf0\x9f\x98 tail", "\ufffd tail"},
      {"\xc0\xaf", "\ufffd\ufffd"},
      {"\xe0\x80\xaf", "\ufffd\ufffd\ufffd"},
      {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
      {"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
      {"\xf8\x88\x80\x80\x80", "\ufffd\ufffd\ufffd\ufffd\ufffd"},
      {"\xfe\xff", "\ufffd\ufffd"},
      {"\xea\xb0\x80\xea\xb0", "\uac00\ufffd"},
      {"\xf0\x9f\xf0\x9f\x98\x80", "\ufffd\U0001f600"}};
  for (const auto& [bytes, expected] : cases) {
    StreamDecoder stream(*t, false);
    std::string shown;
    for (const std::string& part : push_bytes(stream, bytes)) shown += part;
    EXPECT_EQ(shown, expected);
  }
}

TEST(StreamDecoder, EveryPartIsWellFormedAndGoodTextIsUnchanged) {
  const auto t = byte_tokenizer();
  uint32_t state = 99;
  for (int round = 0; round < 500; ++round) {
    StreamDecoder stream(*t, false);
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      state = state * 1664525u + 1013904223u;
      bytes += static_cast<char>(state >> 24);
    }
    for (const std::string& part : push_bytes(stream, bytes)) {
      EXPECT_EQ(text::utf8_valid_end(part, 0), part.size()) << "round " << round;
    }
  }
  const std::string good = "na\u00efve \u6f22\u5b57 \U0001f468\u200d\U0001f469 \u0000 \u10ffff";
  StreamDecoder stream(*t, false);
  std::string shown;
  for (const std::string& part : push_bytes(stream, good)) shown += part;
  EXPECT_EQ(shown, good);
}

TEST(StreamDecoder, ControlTokensOnlyWhenAsked) {
  const auto t = byte_tokenizer();
  const TokenId end = t->find("<|im_end|>");
  StreamDecoder hidden(*t, false), shown(*t, true);
  EXPECT_EQ(hidden.push(end), "");
  EXPECT_EQ(shown.push(end), "<|im_end|>");
  EXPECT_EQ(shown.push(-1), "");
  EXPECT_EQ(shown.push(1 << 30), "");
}

TEST(StreamDecoder, AllocatesNothingAfterItIsMade) {
  const auto t = byte_tokenizer();
  StreamDecoder stream(*t, true);
  AllocCounter::reset();
  size_t n = 0;
  for (int round = 0; round < 10; ++round) {
    for (TokenId id = 0; id < t->n_vocab(); ++id) n += stream.push(id).size();
    n += stream.finish().size();
  }
  EXPECT_EQ(AllocCounter::n_allocs(), 0);
  EXPECT_GT(n, 2560u);
}

}  // namespace
}  // namespace infer::test
