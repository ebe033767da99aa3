#include "tests/support/tiny_vocab.h"

#include <utility>

#include <fmt/format.h>

#include "core/text/unicode.h"
#include "gguf/reader.h"

namespace infer::test {
namespace {

using text::TokenKind;

struct Rows {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  void add(std::string token, TokenKind kind, float score = 0.0f) {
    tokens.push_back(std::move(token));
    scores.push_back(score);
    types.push_back(static_cast<int32_t>(kind));
  }
  GgufImage image(std::string_view model, std::string_view pre) && {
    GgufImage out;
    out.set("general.architecture", std::string("llama"));
    out.set("tokenizer.ggml.model", std::string(model));
    out.set("tokenizer.ggml.pre", std::string(pre));
    out.set("tokenizer.ggml.tokens", std::move(tokens));
    out.set("tokenizer.ggml.token_type", std::move(types));
    if (model == "llama") out.set("tokenizer.ggml.scores", std::move(scores));
    return out;
  }
};

}  // namespace

GgufImage tiny_bpe(std::string_view pre, const std::vector<std::string>& merges,
                   const std::vector<ExtraToken>& extra) {
  Rows rows;
  for (int b = 0; b < 256; ++b) {
    std::string spelling;
    text::append_utf8(spelling, text::byte_to_stand_in(static_cast<uint8_t>(b)));
    rows.add(std::move(spelling), TokenKind::kNormal);
  }
  for (const std::string& merge : merges) {
    std::string joined = merge;
    joined.erase(joined.find(' ', 1), 1);
    bool known = false;
    for (const std::string& t : rows.tokens) known = known || t == joined;
    if (!known) rows.add(std::move(joined), TokenKind::kNormal);
  }
  for (const ExtraToken& t : extra) rows.add(t.text, t.kind);
  GgufImage out = std::move(rows).image("gpt2", pre);
  out.set("tokenizer.ggml.merges", merges);
  return out;
}

GgufImage tiny_spm(const std::vector<std::pair<std::string, float>>& pieces,
                   const std::vector<ExtraToken>& extra) {
  Rows rows;
  rows.add("<unk>", TokenKind::kUnknown);
  rows.add("<s>", TokenKind::kControl);
  rows.add("</s>", TokenKind::kControl);
  for (int b = 0; b < 256; ++b) rows.add(fmt::format("<0x{:02X}>", b), TokenKind::kByte);
  for (const auto& [piece, score] : pieces) rows.add(piece, TokenKind::kNormal, score);
  for (const ExtraToken& t : extra) rows.add(t.text, t.kind);
  return std::move(rows).image("llama", "default");
}

Result<std::shared_ptr<const text::Tokenizer>> load_tokenizer(const GgufImage& image) {
  const std::vector<std::byte> bytes = image.serialize();
  INFER_ASSIGN(const auto reader, gguf::Reader::parse(bytes, "test.gguf"));
  return text::Tokenizer::load(*reader);
}

}  // namespace infer::test
