#include "core/text/unicode.h"

#include <array>
#include <cstdlib>
#include <memory>

#include <utf8proc.h>

namespace infer::text {
namespace {

struct LeadRule {
  uint8_t len;     // bytes of the whole character, 0 for a byte that cannot start one
  uint8_t lo, hi;  // range of the second byte
};

// Table 3-7 of The Unicode Standard: well-formed byte sequences.
constexpr LeadRule lead_rule(uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xc2) return {0, 0, 0};
  if (b < 0xe0) return {2, 0x80, 0xbf};
  if (b == 0xe0) return {3, 0xa0, 0xbf};
  if (b == 0xed) return {3, 0x80, 0x9f};
  if (b < 0xf0) return {3, 0x80, 0xbf};
  if (b == 0xf0) return {4, 0x90, 0xbf};
  if (b < 0xf4) return {4, 0x80, 0xbf};
  if (b == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

constexpr bool is_printable_byte(int b) {
  return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

constexpr int kStandIns = 256 + 68;  // code points 0..323 cover every stand-in

struct Alphabet {
  std::array<uint16_t, 256> cp{};
  std::array<int16_t, kStandIns> byte{};
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  for (auto& b : a.byte) b = -1;
  int extra = 256;
  for (int b = 0; b < 256; ++b) {
    const int cp = is_printable_byte(b) ? b : extra++;
    a.cp[b] = static_cast<uint16_t>(cp);
    a.byte[cp] = static_cast<int16_t>(b);
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();
static_assert(kAlphabet.cp[' '] == 0x120 && kAlphabet.cp['\n'] == 0x10a);

}  // namespace

Utf8Step utf8_step(std::string_view s, size_t at) noexcept {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(s[at + i]); };
  const uint8_t b0 = byte(0);
  const LeadRule rule = lead_rule(b0);
  if (rule.len == 1) return {Utf8Kind::kOk, 1, b0};
  if (rule.len == 0) return {Utf8Kind::kIll, 1, kReplacementChar};
  uint32_t cp = b0 & (0xffu >> (rule.len + 1));
  for (uint8_t i = 1; i < rule.len; ++i) {
    if (at + i >= s.size()) return {Utf8Kind::kCut, i, kReplacementChar};
    const uint8_t b = byte(i);
    const bool fits = i == 1 ? b >= rule.lo && b <= rule.hi : (b & 0xc0) == 0x80;
    if (!fits) return {Utf8Kind::kIll, i, kReplacementChar};
    cp = cp << 6 | (b & 0x3fu);
  }
  return {Utf8Kind::kOk, rule.len, cp};
}

size_t utf8_valid_end(std::string_view s, size_t from) noexcept {
  size_t at = from;
  while (at < s.size()) {
    if (static_cast<uint8_t>(s[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(s, at);
    if (step.kind != Utf8Kind::kOk) break;
    at += step.len;
  }
  return at;
}

size_t utf8_ill_end(std::string_view s, size_t from) noexcept {
  size_t at = from;
  while (at < s.size()) {
    const Utf8Step step = utf8_step(s, at);
    if (step.kind == Utf8Kind::kOk) break;
    at += step.len;
  }
  return at;
}

void append_utf8(std::string& out, uint32_t cp) {
  if (cp < 0x80) {
    out += static_cast<char>(cp);
  } else if (cp < 0x800) {
    out += static_cast<char>(0xc0 | cp >> 6);
    out += static_cast<char>(0x80 | (cp & 0x3f));
  } else if (cp < 0x10000) {
    out += static_cast<char>(0xe0 | cp >> 12);
    out += static_cast<char>(0x80 | (cp >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (cp & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | cp >> 18);
    out += static_cast<char>(0x80 | (cp >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (cp >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (cp & 0x3f));
  }
}

uint32_t byte_to_stand_in(uint8_t byte) noexcept { return kAlphabet.cp[byte]; }

int stand_in_to_byte(uint32_t cp) noexcept { return cp < kStandIns ? kAlphabet.byte[cp] : -1; }

void append_stand_ins(std::string& out, std::string_view bytes) {
  for (const char c : bytes) append_utf8(out, byte_to_stand_in(static_cast<uint8_t>(c)));
}

void append_from_stand_ins(std::string& out, std::string_view spelling) {
  for (size_t at = 0; at < spelling.size();) {
    const Utf8Step step = utf8_step(spelling, at);
    const int byte = step.kind == Utf8Kind::kOk ? stand_in_to_byte(step.cp) : -1;
    if (byte >= 0) {
      out += static_cast<char>(byte);
    } else {
      out.append(spelling, at, step.len);
    }
    at += step.len;
  }
}

bool append_normalized(std::string& out, std::string_view text, NormalForm form) {
  if (text.empty()) return true;
  int options = UTF8PROC_STABLE;
  const bool composed_form = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  options |= composed_form ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* composed = nullptr;
  const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                          static_cast<utf8proc_ssize_t>(text.size()), &composed,
                                          static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  if (n < 0) return false;
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(n));
  return true;
}

}  // namespace infer::text
