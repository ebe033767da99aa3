#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/tokenizer.h"
#include "tests/support/tiny_vocab.h"

/// Tables that contradict: one line with file, key and value, never a crash.
namespace infer::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Strings = std::vector<std::string>;

void expect_refused(const GgufImage& image, ErrorCode code, const Strings& parts) {
  auto t = load_tokenizer(image);
  ASSERT_FALSE(t.ok()) << "loaded, though it should name " << parts[0];
  EXPECT_EQ(t.error().code, code) << t.error().message;
  EXPECT_THAT(t.error().message, HasSubstr("test.gguf"));
  EXPECT_THAT(t.error().message, Not(HasSubstr("\n")));
  for (const std::string& part : parts) EXPECT_THAT(t.error().message, HasSubstr(part));
}

GgufImage bpe() { return tiny_bpe("gpt-2", {"a b", "b c"}, {{"<s>"}}); }
GgufImage spm() { return tiny_spm({{"a", -1}, {"b", -2}, {"ab", -3}}); }

template <class T>
T value_of(const GgufImage& image, std::string_view key) {
  return std::get<T>(*image.find(key));
}

TEST(TokenizerHostile, TheImagesAreGoodUntilSpoilt) {
  EXPECT_TRUE(load_tokenizer(bpe()).ok());
  EXPECT_TRUE(load_tokenizer(spm()).ok());
}

TEST(TokenizerHostile, Model) {
  for (const char* model : {"t5", "bert", "rwkv", "plamo2", "none", "", "GPT2", "x\ny"}) {
    GgufImage image = bpe();
    image.set("tokenizer.ggml.model", std::string(model));
    expect_refused(image, ErrorCode::kUnsupported, {"tokenizer.ggml.model"});
  }
  GgufImage image = bpe();
  image.set("tokenizer.ggml.model", uint32_t{1});
  EXPECT_FALSE(load_tokenizer(image).ok());
  image.erase("tokenizer.ggml.model");
  EXPECT_FALSE(load_tokenizer(image).ok());
}

TEST(TokenizerHostile, PreTokenizer) {
  GgufImage image = bpe();
  image.set("tokenizer.ggml.pre", std::string("no-such\npre"));
  expect_refused(image, ErrorCode::kUnsupported, {"tokenizer.ggml.pre", "no-such"});
  image.set("tokenizer.ggml.pre", int32_t{3});
  EXPECT_FALSE(load_tokenizer(image).ok());
  image.erase("tokenizer.ggml.pre");
  EXPECT_TRUE(load_tokenizer(image).ok());  // "default", as llama.cpp has it
}

TEST(TokenizerHostile, ElementTypes) {
  for (const char* key :
       {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    for (const GgufValue& wrong :
         {GgufValue(uint32_t{7}), GgufValue(std::string("x")), GgufValue(std::vector<int64_t>(262)),
          GgufValue(std::vector<uint8_t>(262)), GgufValue(true)}) {
      GgufImage image = spm();
      image.set(key, wrong);
      expect_refused(image, ErrorCode::kCorrupt, {key});
    }
  }
  GgufImage image = spm();
  image.set("tokenizer.ggml.scores", Strings(262));
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.scores"});
  image = bpe();
  image.set("tokenizer.ggml.merges", std::vector<float>{1});
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.merges"});
}

TEST(TokenizerHostile, LengthsAndMissingTables) {
  for (const size_t n : {0u, 1u, 261u, 263u}) {
    GgufImage image = spm();
    image.set("tokenizer.ggml.scores", std::vector<float>(n));
    expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.scores", std::to_string(n), "262"});
    image = spm();
    image.set("tokenizer.ggml.token_type", std::vector<int32_t>(n, 1));
    expect_refused(image, ErrorCode::kCorrupt,
                   {"tokenizer.ggml.token_type", std::to_string(n), "262"});
  }
  GgufImage image = spm();
  image.erase("tokenizer.ggml.scores");
  expect_refused(image, ErrorCode::kNotFound, {"tokenizer.ggml.scores"});
  image = spm();
  image.erase("tokenizer.ggml.tokens");
  expect_refused(image, ErrorCode::kNotFound, {"tokenizer.ggml.tokens"});
  image = bpe();
  image.erase("tokenizer.ggml.merges");
  expect_refused(image, ErrorCode::kNotFound, {"tokenizer.ggml.merges"});
  image = bpe();
  image.set("tokenizer.ggml.tokens", Strings{});
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.tokens"});
}

TEST(TokenizerHostile, TokenTypesAndScores) {
  for (const int32_t type :
       {-1, 7, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
    GgufImage image = spm();
    auto types = value_of<std::vector<int32_t>>(image, "tokenizer.ggml.token_type");
    types[260] = type;
    image.set("tokenizer.ggml.token_type", types);
    expect_refused(image, ErrorCode::kCorrupt,
                   {"tokenizer.ggml.token_type[260]", std::to_string(type)});
  }
  GgufImage image = spm();
  auto scores = value_of<std::vector<float>>(image, "tokenizer.ggml.scores");
  scores[260] = std::numeric_limits<float>::quiet_NaN();
  image.set("tokenizer.ggml.scores", scores);
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.scores[260]"});
  scores[260] = -std::numeric_limits<float>::infinity();
  image.set("tokenizer.ggml.scores", scores);
  EXPECT_TRUE(load_tokenizer(image).ok());
}

TEST(TokenizerHostile, ByteTokens) {
  for (const char* token : {"<0x-1>", "<0xZZ>", "<0x>", "<0x123>", "<0x4>", "<0x41>x", "<0x",
                            "0x41", "", "<0x41", "<0X41>", "<0x\n1>"}) {
    GgufImage image = spm();
    auto tokens = value_of<Strings>(image, "tokenizer.ggml.tokens");
    tokens[3 + 0x41] = token;
    image.set("tokenizer.ggml.tokens", tokens);
    expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.tokens[68]", "byte token"});
  }
}

TEST(TokenizerHostile, SpecialIds) {
  for (const char* name :
       {"bos", "eos", "unknown", "padding", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    for (const int64_t id : {int64_t{-1}, int64_t{262}, int64_t{1} << 31, int64_t{1} << 40}) {
      GgufImage image = spm();
      image.set(key, id);
      expect_refused(image, ErrorCode::kCorrupt, {key, std::to_string(id)});
    }
    GgufImage image = spm();
    image.set(key, std::string("1"));
    EXPECT_FALSE(load_tokenizer(image).ok()) << key;
    image.set(key, uint32_t{261});
    EXPECT_TRUE(load_tokenizer(image).ok()) << key;
  }
  for (const char* key : {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                          "tokenizer.ggml.add_space_prefix"}) {
    GgufImage image = spm();
    image.set(key, std::string("true"));
    EXPECT_FALSE(load_tokenizer(image).ok()) << key;
  }
  GgufImage image = bpe();
  image.set("tokenizer.ggml.add_bos_token", true);
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.bos_token_id"});
  image = bpe();
  image.set("tokenizer.ggml.add_eos_token", true);
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.eos_token_id"});
}

TEST(TokenizerHostile, DuplicateAndEmptyTokens) {
  GgufImage image = bpe();
  auto tokens = value_of<Strings>(image, "tokenizer.ggml.tokens");
  tokens[200] = "a";
  image.set("tokenizer.ggml.tokens", tokens);
  expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.tokens[200]", "'a'", "97"});
  tokens[200] = tokens[201] = "";
  image.set("tokenizer.ggml.tokens", tokens);
  auto t = load_tokenizer(image);
  ASSERT_TRUE(t.ok()) << t.error().message;
  EXPECT_EQ((*t)->piece(200), "");
  EXPECT_EQ((*t)->find(""), -1);
}

TEST(TokenizerHostile, Merges) {
  for (const char* merge :
       {"ab", "", " ", "a ", " b", "a x\xff", "zz a", "a b c", "a  b", "b a", "a\nb c"}) {
    GgufImage image = bpe();
    image.set("tokenizer.ggml.merges", Strings{"a b", merge});
    expect_refused(image, ErrorCode::kCorrupt, {"tokenizer.ggml.merges[1]"});
  }
}

TEST(TokenizerHostile, TooManyTokens) {
  GgufImage image = bpe();
  image.set("tokenizer.ggml.tokens", Strings((size_t{1} << 20) + 1));
  expect_refused(image, ErrorCode::kUnsupported, {"tokenizer.ggml.tokens", "1048577"});
}

TEST(TokenizerHostile, LongTextIsAnErrorNotACrash) {
  auto t = load_tokenizer(bpe());
  ASSERT_TRUE(t.ok());
  static const char byte = 'x';  // a view whose bytes are never read
  auto ids = (*t)->encode(std::string_view(&byte, (size_t{1} << 30) + 1));
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace infer::test
