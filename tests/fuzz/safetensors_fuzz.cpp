#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "quantize/convert/json.h"
#include "quantize/convert/safetensors.h"

/// Any bytes as a .safetensors file and as a configuration; what is accepted is read to the last
/// byte.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace infer::quantize;
  const auto one_line = [](const infer::Error& error) {
    if (error.message.find('\n') != std::string::npos) __builtin_trap();
  };
  const auto json =
      parse_json(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz.json");
  if (!json.ok()) one_line(json.error());

  const auto file = SafeTensors::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.ok()) {
    one_line(file.error());
    return 0;
  }
  for (const SafeTensor& t : file->tensors()) {
    if (file->find(t.name) != &t) __builtin_trap();
    std::vector<float> floats(static_cast<size_t>(t.n_elem()));
    std::vector<int64_t> ints(floats.size());
    if (t.n_row() * t.n_k() != t.n_elem()) __builtin_trap();
    const auto a = read_floats(t, 0, floats, "fuzz");
    const auto b = read_ints(t, 0, ints, "fuzz");
    if (!a.ok()) one_line(a.error());
    if (!b.ok()) one_line(b.error());
    file->release(t, t.data);
  }
  return 0;
}
