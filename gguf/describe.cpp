#include "gguf/describe.h"

#include <cstdint>

#include <fmt/format.h>

#include "gguf/cursor.h"

namespace infer::gguf {
namespace {

/// Length of the well-formed UTF-8 character at the start of s, 0 if there is none (Unicode 15,
/// table 3-7).
size_t utf8_length(std::string_view s) {
  const auto at = [&](size_t i) { return i < s.size() ? static_cast<uint8_t>(s[i]) : uint8_t{0}; };
  const auto tail = [&](size_t i) { return (at(i) & 0xc0u) == 0x80u; };
  const uint8_t a = at(0);
  const uint8_t b = at(1);
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf) return tail(1) ? 2 : 0;
  if (a >= 0xe0 && a <= 0xef) {
    if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b > 0x9f)) return 0;
    return tail(1) && tail(2) ? 3 : 0;
  }
  if (a >= 0xf0 && a <= 0xf4) {
    if ((a == 0xf0 && b < 0x90) || (a == 0xf4 && b > 0x8f)) return 0;
    return tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string printable(std::string_view bytes, size_t max_bytes) {
  std::string out;
  size_t i = 0;
  while (i < bytes.size()) {
    const size_t n = utf8_length(bytes.substr(i));
    const uint8_t c = static_cast<uint8_t>(bytes[i]);
    // C1 controls (U+0080..U+009F) can move a terminal's cursor just as C0 can.
    const bool c1 = n == 2 && c == 0xc2 && static_cast<uint8_t>(bytes[i + 1]) < 0xa0;
    const bool shown = n > 0 && c >= 0x20 && c != 0x7f && !c1;
    const size_t step = n == 0 ? 1 : n;
    std::string piece;
    if (shown) {
      piece.assign(bytes.substr(i, step));
    } else {
      for (size_t j = 0; j < step; ++j)
        piece += fmt::format("\\x{:02x}", static_cast<uint8_t>(bytes[i + j]));
    }
    if (out.size() + piece.size() > max_bytes) return out + "...";
    out += piece;
    i += step;
  }
  return out;
}

std::string describe(const Value& value) {
  switch (value.type()) {
    case ValueType::kArray:
      return fmt::format("array of {} {}", value.size(), name_of(value.elem_type()));
    case ValueType::kString:
      return fmt::format("str '{}'", printable(*value.as_string()));
    case ValueType::kBool:
      return fmt::format("bool {}", *value.as_bool());
    case ValueType::kF32:
      return fmt::format("f32 {}", static_cast<float>(*value.as_float()));
    case ValueType::kF64:
      return fmt::format("f64 {}", *value.as_float());
    case ValueType::kU64:
      return fmt::format("u64 {}", load_le<uint64_t>(value.raw().data()));
    default:
      return fmt::format("{} {}", name_of(value.type()), *value.as_int());
  }
}

}  // namespace infer::gguf
