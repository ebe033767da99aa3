#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/base/crc32c.h"
#include "core/engine_session.h"

/// Any bytes as a session file, as they are and with a checksum that fits, so that what is behind
/// it is reached.
namespace {

infer::SessionBinding binding() {
  infer::SessionBinding b;
  b.model_hash = 1;
  b.type_k = infer::DType::kF16;
  b.type_v = infer::DType::kF32;
  b.layers = {{.n_kv_head = 1, .head_dim = 2, .head_dim_v = 2, .window = 0},
              {.n_kv_head = 1, .head_dim = 2, .head_dim_v = 2, .window = 40}};
  b.n_vocab = 100;
  return b;
}

void read(std::span<const std::byte> bytes) {
  static const infer::SessionBinding kBinding = binding();
  const auto session = infer::parse_session(bytes, "fuzz", kBinding);
  if (!session.ok()) {
    if (session.error().message.find('\n') != std::string::npos) __builtin_trap();
    return;
  }
  const auto n_tok = static_cast<int64_t>(session->tokens.size());
  for (const infer::Session::Layer& layer : session->layers) {
    const auto n_row = static_cast<size_t>(n_tok - layer.first);
    if (layer.k.size() != n_row * 4 || layer.v.size() != n_row * 8) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  read(bytes);
  if (size < sizeof(uint32_t)) return 0;
  std::vector<std::byte> sealed(bytes.begin(), bytes.end());
  const uint32_t crc = infer::crc32c(0, bytes.first(size - sizeof(crc)));
  std::memcpy(sealed.data() + size - sizeof(crc), &crc, sizeof(crc));
  read(sealed);
  return 0;
}
