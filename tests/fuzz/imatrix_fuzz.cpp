#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "quantize/imatrix.h"

/// Any bytes as an importance matrix. What is accepted holds what the header promises, and can be
/// combined with itself.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using infer::quantize::Imatrix;
  const auto check = [](const infer::Error& error) {
    if (error.message.find('\n') != std::string::npos) __builtin_trap();
  };
  const auto read = Imatrix::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!read.ok()) {
    check(read.error());
    return 0;
  }
  for (const auto& [tensor, e] : read->entries) {
    const auto n_mat = static_cast<int64_t>(e.n_tok.size());
    if (read->means(tensor, n_mat - 1).size() != static_cast<size_t>(e.n_k)) __builtin_trap();
    for (const float mean : e.mean_sq) {
      if (!(mean >= 0.0f) || !std::isfinite(mean)) __builtin_trap();
    }
  }
  Imatrix all;
  all.chunk_tok = 512;
  for (int i = 0; i < 2; ++i) {
    if (const auto done = all.combine(*read); !done.ok()) check(done.error());
  }
  return 0;
}
