#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/text/tokenizer.h"
#include "quantize/convert/hf_tokenizer_files.h"
#include "tests/support/tokenizer_files.h"

/// Tokenizer files through the conversion and back as a Tokenizer.
namespace infer::test {

struct Converted {
  std::string error;  ///< empty if it went well
  std::vector<std::string> notes{};
  std::vector<std::byte> bytes{};  ///< what the header lies in
  std::shared_ptr<const gguf::Reader> header{};
  std::shared_ptr<const text::Tokenizer> tokenizer{};
};

inline Converted convert_files(const quantize::HfTokenizerFiles& files, int64_t n_vocab,
                               const std::string& arch = "llama") {
  Converted c;
  gguf::HeaderBuilder out("model.gguf");
  auto written = quantize::write_tokenizer(files, {arch, n_vocab}, out, &c.notes);
  if (!written.ok()) {
    c.error = written.error().message;
    return c;
  }
  auto bytes = out.encode();
  EXPECT_TRUE(bytes.ok());
  if (!bytes.ok()) return c;
  c.bytes = *std::move(bytes);
  auto header = gguf::Reader::parse(c.bytes, "model.gguf", {.header_only = true});
  if (!header.ok()) {
    c.error = header.error().message;
    return c;
  }
  c.header = *header;
  auto tokenizer = text::Tokenizer::load(*c.header);
  if (!tokenizer.ok()) {
    c.error = tokenizer.error().message;
    return c;
  }
  c.tokenizer = *tokenizer;
  return c;
}

/// tests/data/hf_tokenizer.json.gz; null without it.
inline nlohmann::json stored_hf_tokenizer() {
  auto body = read_text("tests/data/hf_tokenizer.json.gz");
  if (!body.ok()) return nullptr;
  return nlohmann::json::parse(*body, nullptr, false);
}

}  // namespace infer::test
