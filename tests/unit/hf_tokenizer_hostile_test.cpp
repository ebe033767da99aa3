#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantize/convert/hf_tokenizer_json.h"
#include "quantize/convert/sentencepiece.h"
#include "tests/support/hf_tokenizer_case.h"

namespace infer::test {
namespace {

using quantize::HfTokenizerFiles;
using quantize::parse_sentencepiece;
using testing::HasSubstr;

std::string varint(uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  return out + static_cast<char>(v);
}
std::string bytes_field(uint64_t number, std::string_view body) {
  return varint(number << 3 | 2) + varint(body.size()) + std::string(body);
}
std::string varint_field(uint64_t number, uint64_t v) { return varint(number << 3) + varint(v); }
std::string float_field(uint64_t number, float v) {
  return varint(number << 3 | 5) + std::string(reinterpret_cast<const char*>(&v), 4);
}
std::string piece(std::string_view text, float score, uint64_t type) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) + varint_field(3, type));
}

/// <unk>, <s>, </s>, four pieces, a BPE trainer and a normalizer.
std::string model_bytes(uint64_t kind = 2) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581a", -1, 1) +
         piece("\u2581", -2, 1) + piece("a", -3, 1) + piece("<0x0A>", 0, 6) +
         bytes_field(2, varint_field(3, kind) + varint_field(35, 1) + varint_field(40, 0) +
                            varint_field(43, ~uint64_t{0})) +
         bytes_field(3, bytes_field(1, "identity") + varint_field(3, 1) + varint_field(4, 0)) +
         bytes_field(99, "unknown fields are passed over");
}

Converted convert_model(const std::string& bytes, int64_t n_vocab = 8) {
  return convert_files({.folder = "dir", .tokenizer_model = bytes}, n_vocab);
}

TEST(HfTokenizerHostile, TheModelItself) {
  auto model = parse_sentencepiece(model_bytes(), "m");
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ(model->pieces.size(), 7u);
  EXPECT_EQ(model->pieces[3].score, -1.0f);
  EXPECT_EQ(model->pad, -1);
  EXPECT_TRUE(model->byte_fallback);
  EXPECT_FALSE(model->remove_extra_whitespaces);
  const Converted c = convert_model(model_bytes());
  ASSERT_NE(c.tokenizer, nullptr) << c.error;
  EXPECT_THAT(*c.tokenizer->encode("a\n", {.add_special = false}), testing::ElementsAre(3, 6));
}

TEST(HfTokenizerHostile, CutAtEveryByteAndEveryByteChanged) {
  const std::string whole = model_bytes();
  for (size_t n = 0; n < whole.size(); ++n) {
    // A copy of exactly this size: a read past its end is seen by the sanitizer.
    const std::vector<char> part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    auto cut = parse_sentencepiece({part.data(), part.size()}, "m");
    if (cut.ok()) convert_model(std::string(part.begin(), part.end()));
    for (const int change : {1, 0x80, 0xff}) {
      std::string spoilt = whole;
      spoilt[n] = static_cast<char>(spoilt[n] ^ change);
      const Converted c = convert_model(spoilt);
      EXPECT_EQ(c.error.find('\n'), std::string::npos) << c.error;
    }
  }
}

TEST(HfTokenizerHostile, WrongTypesCountsAndKindsAreErrors) {
  const auto error = [](const std::string& bytes) {
    auto model = parse_sentencepiece(bytes, "m");
    return model.ok() ? std::string() : model.error().message;
  };
  EXPECT_THAT(error(""), HasSubstr("m: not a SentencePiece model: no piece"));
  EXPECT_THAT(error(varint_field(1, 7)), HasSubstr("a field of the wrong type"));
  EXPECT_THAT(error(bytes_field(1, varint_field(1, 7))), HasSubstr("no piece before byte"));
  EXPECT_THAT(error(bytes_field(1, varint_field(3, 9))), HasSubstr("no piece"));
  EXPECT_THAT(error(piece("a", std::nanf(""), 1)), HasSubstr("no piece"));
  EXPECT_THAT(error(varint(1 << 3 | 2) + varint(uint64_t{1} << 62)), HasSubstr("no field"));
  EXPECT_THAT(error(std::string(11, '\xff')), HasSubstr("no field"));
  EXPECT_THAT(error(piece("a", 0, 1) + bytes_field(2, varint_field(3, 0))),
              HasSubstr("no trainer_spec"));
  EXPECT_THAT(convert_model(model_bytes(1)).error, HasSubstr("model_type Unigram"));
  EXPECT_THAT(convert_model(model_bytes() + piece("a", 0, 1)).error,
              HasSubstr("token 'a' has ids 5 and 7"));
  EXPECT_THAT(convert_model(model_bytes() + piece("x", 0, 6)).error, HasSubstr("marked as a byte"));
  for (const int64_t n : {int64_t{0}, int64_t{-1}, int64_t{1} << 40})
    EXPECT_THAT(convert_model(model_bytes(), n).error, HasSubstr("a vocabulary of"));
  EXPECT_EQ(convert_model(model_bytes(), 4).notes.size(), 1u);  // pieces without a row
}

std::string json_error(const std::string& body, int64_t n_vocab = 16) {
  const Converted c = convert_files({.folder = "dir", .tokenizer_json = body}, n_vocab);
  EXPECT_EQ(c.error.find('\n'), std::string::npos) << c.error;
  return c.error;
}

std::string bpe_json(const std::string& vocab, const std::string& merges,
                     const std::string& rest = "") {
  return R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": )" + vocab +
         R"(, "merges": )" + merges + "}" + rest + "}";
}

TEST(HfTokenizerHostile, TokenizerJson) {
  EXPECT_EQ(json_error(bpe_json(R"({"a": 0, "b": 1, "ab": 2})", R"([["a", "b"]])")), "");
  EXPECT_THAT(json_error("[]"), HasSubstr("dir/tokenizer.json: not a JSON object"));
  EXPECT_THAT(json_error("{"), HasSubstr("not a JSON object"));
  EXPECT_THAT(json_error(R"({"a": "\ud800"})"), HasSubstr("not a JSON object"));
  EXPECT_THAT(json_error(R"({"a": )" + std::string(100'000, '[')),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 99})", "[]")), HasSubstr("token 'a' has id 99"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": -1})", "[]")), HasSubstr("has id -1"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 1e300})", "[]")),
              HasSubstr("the id of 'a' is no integer"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": {"b": 1}})", "[]")), HasSubstr("the id of 'a'"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 18446744073709551615})", "[]")), HasSubstr("has id -1"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 1, "b": 1})", "[]")), HasSubstr("both have id 1"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 0, "a": 1})", "[]")), HasSubstr("'a' has ids 0 and 1"));
  EXPECT_THAT(json_error(bpe_json("{}", "[]")), HasSubstr("model.vocab has no tokens"));
  EXPECT_THAT(json_error(bpe_json("7", "[]")), HasSubstr("model.vocab has no tokens"));
  for (const char* merges : {R"(["ab"])", R"(["a b c"])", R"([["a"]])", R"([["a", "b", "c"]])",
                             "[7]", R"([["a", 7]])", R"([["", "a"]])", R"([{"a": "b"}, "x"])"}) {
    EXPECT_THAT(json_error(bpe_json(R"({"a": 0})", merges)),
                HasSubstr("model.merges[0] is no pair"))
        << merges;
  }
  EXPECT_THAT(json_error(bpe_json(R"({"a": 0})", R"(["a b"])")),
              HasSubstr("model.merges[0] = 'a b' names a token"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 0})", "[]",
                                  R"(, "added_tokens": [{"id": -5, "content": "x"}])")),
              HasSubstr("added token 'x' has id -5"));
  EXPECT_THAT(json_error(bpe_json(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 5}])")),
              HasSubstr("added token 5 has no content"));
  EXPECT_THAT(
      json_error(bpe_json(R"({"a": 0})", "[]", R"(, "added_tokens": [{"id": 5, "content": "a"}])")),
      HasSubstr("'a' has ids 0 and 5"));
}

TEST(HfTokenizerHostile, OddTypesElsewhereDoNotMatter) {
  HfTokenizerFiles files{.folder = "dir", .tokenizer_model = model_bytes()};
  for (
      const char* config :
      {R"({"bos_token": 7, "add_bos_token": "yes", "chat_template": 5, "added_tokens_decoder": []})",
       R"({"bos_token": {"content": []}, "chat_template": [1, {"name": 2}]})",
       R"({"eos_token_id": [], "bos_token_id": "x", "pad_token_id": 1e9, "text_config": 3})"}) {
    files.tokenizer_config = files.config = files.generation_config = config;
    files.special_tokens_map = config;
    EXPECT_EQ(convert_files(files, 8).error, "") << config;
  }
  files.tokenizer_config = R"({"added_tokens_decoder": {"x": {"content": "y"}}})";
  EXPECT_THAT(convert_files(files, 8).error, HasSubstr("added token 'y' has id -1"));
  files.tokenizer_config = "nonsense";
  EXPECT_THAT(convert_files(files, 8).error, HasSubstr("dir/tokenizer_config.json: not a JSON"));
  EXPECT_THAT(
      convert_files(
          {.folder = "dir", .tokenizer_model = model_bytes(), .added_tokens = R"({"a": []})"}, 8)
          .error,
      HasSubstr("added_tokens.json: the id of 'a'"));
}

/// Without a tokenizer.json the settings say what is added.
TEST(HfTokenizerHostile, SettingsOfAModelAlone) {
  const auto ids_with = [](const char* config) {
    const Converted c = convert_files(
        {.folder = "dir", .tokenizer_model = model_bytes(), .tokenizer_config = config}, 8);
    EXPECT_NE(c.tokenizer, nullptr) << c.error;
    return c.tokenizer == nullptr ? std::vector<text::TokenId>() : *c.tokenizer->encode("a");
  };
  using testing::ElementsAre;
  EXPECT_THAT(ids_with("{}"), ElementsAre(1, 3));
  EXPECT_THAT(ids_with(R"({"add_bos_token": false})"), ElementsAre(3));
  EXPECT_THAT(ids_with(R"({"add_eos_token": true})"), ElementsAre(1, 3, 2));
  EXPECT_THAT(ids_with(R"({"add_bos_token": false, "add_eos_token": true})"), ElementsAre(3, 2));
}

/// The parser's time grows with the square of the objects in one list.
TEST(HfTokenizerHostile, ListsOfManyObjects) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a minute and a half under AddressSanitizer";
#endif
  std::string config = R"({"x": [{})";
  for (int i = 0; i < 100'000; ++i) config += ",{}";
  HfTokenizerFiles files{.folder = "dir", .tokenizer_model = model_bytes()};
  files.tokenizer_config = config + "]}";
  EXPECT_THAT(convert_files(files, 8).error,
              HasSubstr("dir/tokenizer_config.json: more than 32768 objects"));
}

/// Keys of ours in a GGUF that somebody else wrote.
TEST(HfTokenizerHostile, RulesOfAFile) {
  gguf::HeaderBuilder out("m");
  const std::vector<std::string_view> tokens = {"a", "b"};
  ASSERT_TRUE(out.add_string("tokenizer.ggml.model", "gpt2").ok());
  ASSERT_TRUE(out.add_strings("tokenizer.ggml.tokens", tokens).ok());
  ASSERT_TRUE(out.add_strings("tokenizer.ggml.merges", {}).ok());
  const std::vector<std::string_view> rules = {"split isolated (a"};
  ASSERT_TRUE(out.add_strings("infer.tokenizer.pre.rules", rules).ok());
  auto bytes = out.encode();
  auto file = gguf::Reader::parse(*bytes, "m.gguf", {.header_only = true});
  ASSERT_TRUE(file.ok()) << file.error().message;
  auto tokenizer = text::Tokenizer::load(**file);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(tokenizer.error().message, HasSubstr("m.gguf: pre-tokenizer rule '(a'"));
}

}  // namespace
}  // namespace infer::test
