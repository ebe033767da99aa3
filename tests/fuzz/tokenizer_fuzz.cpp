#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/support/tiny_vocab.h"

/// Any bytes through small vocabularies of both models: nothing crashes, no id lies outside the
/// vocabulary, bytes come back, and what is streamed is UTF-8. The first byte of the input chooses
/// vocabulary and options. Built for libFuzzer (INFER_FUZZ) and for replay_main.cpp.
namespace {

using infer::text::TokenId;
using infer::text::Tokenizer;
using infer::text::TokenKind;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

const std::vector<infer::test::ExtraToken> kExtra = {{"<|im_start|>"},
                                                     {"<|im_end|>"},
                                                     {"<b>", TokenKind::kUserDefined},
                                                     {"b><|", TokenKind::kUserDefined},
                                                     {"  ", TokenKind::kUserDefined},
                                                     {"\n\n\n", TokenKind::kUserDefined}};

TokenizerPtr bpe(const char* pre) {
  infer::test::GgufImage image =
      infer::test::tiny_bpe(pre,
                            {"\u0120 t", "h e", "\u0120t he", "i n", "a a", "aa aa",
                             "\u0120 \u0120", "\u00c3 \u00a9", "\u00f0 \u0141", "1 2"},
                            kExtra);
  image.set("tokenizer.ggml.bos_token_id", uint32_t{258});
  auto t = infer::test::load_tokenizer(image);
  if (!t.ok()) __builtin_trap();
  return *t;
}

TokenizerPtr spm(bool prefix) {
  infer::test::GgufImage image = infer::test::tiny_spm({{"\u2581", -1},
                                                        {"t", -2},
                                                        {"h", -3},
                                                        {"e", -4},
                                                        {"a", -5},
                                                        {"aa", -6},
                                                        {"\u2581t", -7},
                                                        {"he", -8},
                                                        {"\u2581the", -9},
                                                        {"aaaa", -10},
                                                        {"\u00e9", -11},
                                                        {">\u2581a", -12}},
                                                       kExtra);
  image.set("tokenizer.ggml.add_space_prefix", prefix);
  auto t = infer::test::load_tokenizer(image);
  if (!t.ok()) __builtin_trap();
  return *t;
}

const std::vector<TokenizerPtr>& tokenizers() {
  static const std::vector<TokenizerPtr> all = {bpe("gpt-2"),    bpe("smollm"), bpe("llama-bpe"),
                                                bpe("qwen2"),    bpe("falcon"), bpe("default"),
                                                bpe("gpt-neox"), spm(true),     spm(false)};
  return all;
}

void check_streaming(const Tokenizer& t, const std::vector<TokenId>& ids) {
  infer::text::StreamDecoder stream(t, true);
  for (const TokenId id : ids) {
    const std::string_view part = stream.push(id);
    if (infer::text::utf8_valid_end(part, 0) != part.size()) __builtin_trap();
  }
  const std::string_view rest = stream.finish();
  if (infer::text::utf8_valid_end(rest, 0) != rest.size()) __builtin_trap();
}

/// NFC, and U+2581 beside real spaces, change the bytes on purpose.
bool comes_back(const Tokenizer& t, std::string_view text) {
  if (t.pre_name() == "gpt-neox") return false;
  return t.model_name() == "gpt2" ||
         (!t.special().add_space_prefix && text.find(infer::text::kSpaceMark) == text.npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Tokenizer& t = *tokenizers()[(data[0] & 15) % tokenizers().size()];
  const infer::text::EncodeOptions options{.add_special = false,
                                           .parse_special = (data[0] & 16) != 0};
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto ids = t.encode(text, options);
  if (!ids.ok()) {
    if (ids.error().message.find('\n') != std::string::npos) __builtin_trap();
    return 0;
  }
  for (const TokenId id : *ids) {
    if (id < 0 || id >= t.n_vocab()) __builtin_trap();
  }
  if (comes_back(t, text) && t.decode(*ids, true) != text) __builtin_trap();
  check_streaming(t, *ids);
  return 0;
}
