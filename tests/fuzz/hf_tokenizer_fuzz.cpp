#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"
#include "gguf/reader.h"
#include "quantize/convert/hf_tokenizer_files.h"

/// Any bytes as the tokenizer files of a folder: an error of one line, or keys that a Tokenizer
/// either refuses or encodes with. The first byte says which files the rest is: tokenizer.model,
/// tokenizer.json, or tokenizer.json and, behind a NUL, tokenizer_config.json. Built for libFuzzer
/// (INFER_FUZZ) and for replay_main.cpp.
namespace {

using infer::quantize::HfTokenizerFiles;

HfTokenizerFiles files_of(uint8_t kind, std::string_view rest) {
  HfTokenizerFiles files{.folder = "dir"};
  const size_t nul = std::min(rest.find('\0'), rest.size());
  switch (kind % 3) {
    case 0:
      files.tokenizer_model = rest;
      break;
    case 1:
      files.tokenizer_json = rest;
      break;
    default:
      files.tokenizer_json = rest.substr(0, nul);
      files.tokenizer_config = rest.substr(std::min(nul + 1, rest.size()));
      files.generation_config = files.tokenizer_config;
      break;
  }
  return files;
}

void check_line(const std::string& message) {
  if (message.empty() || message.find('\n') != std::string::npos) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  infer::gguf::HeaderBuilder out("model.gguf");
  std::vector<std::string> notes;
  const auto written =
      infer::quantize::write_tokenizer(files_of(data[0], rest), {"llama", 300}, out, &notes);
  if (!written.ok()) {
    check_line(written.error().message);
    return 0;
  }
  for (const std::string& note : notes) check_line(note);
  const auto bytes = out.encode();
  if (!bytes.ok()) __builtin_trap();
  const auto header = infer::gguf::Reader::parse(*bytes, "model.gguf", {.header_only = true});
  if (!header.ok()) __builtin_trap();
  const auto tokenizer = infer::text::Tokenizer::load(**header);
  if (!tokenizer.ok()) {
    check_line(tokenizer.error().message);
    return 0;
  }
  const auto ids = (*tokenizer)->encode("Hello  wor\u00e9ld 123,\n\taaaaaaaaaaaaaaaa \u6f22b <s>");
  if (!ids.ok()) {
    check_line(ids.error().message);
    return 0;
  }
  for (const infer::text::TokenId id : *ids) {
    if (id < 0 || id >= (*tokenizer)->n_vocab()) __builtin_trap();
  }
  return 0;
}
