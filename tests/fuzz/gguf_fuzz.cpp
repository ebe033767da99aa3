#include <cstddef>
#include <cstdint>
#include <span>

#include "gguf/audit.h"
#include "gguf/describe.h"
#include "gguf/reader.h"
#include "tests/support/gguf_builder.h"

/// Any bytes through the reader; what it accepts is read to the last byte. Built for libFuzzer
/// (INFER_FUZZ) and for replay_main.cpp.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using infer::gguf::Reader;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  for (const bool header_only : {false, true}) {
    const auto file = Reader::parse(bytes, "fuzz", {.header_only = header_only});
    if (!file.ok()) {
      if (file.error().message.find('\n') != std::string::npos) __builtin_trap();
      continue;
    }
    infer::test::touch_everything(**file);
    for (const infer::gguf::KeyValue& kv : (*file)->kvs()) {
      infer::gguf::printable(kv.key);
      infer::gguf::describe(kv.value);
    }
    infer::gguf::audit_tokenizer(**file);
    if (!header_only) infer::gguf::audit_tensor_data(**file);
  }
  return 0;
}
