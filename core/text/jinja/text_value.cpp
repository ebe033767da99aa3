#include "core/text/jinja/text_value.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <utf8proc.h>

#include "core/text/unicode.h"

namespace infer::text::jinja {
namespace {

constexpr int32_t kSharpS = 0xdf;

utf8proc_category_t category(int32_t cp) {
  return cp < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(cp);
}

bool is_cased(int32_t cp) { return is_upper(cp) || is_lower(cp); }

/// Where Jinja's `title` starts a new word: after one of these.
bool splits_words(int32_t cp) {
  return is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
}

bool is_in(std::string_view chars, std::string_view one) {
  for (size_t at = 0; at < chars.size();) {
    const size_t len = char_len(chars, at);
    if (chars.substr(at, len) == one) return true;
    at += len;
  }
  return false;
}

/// Start of the last character of s (not empty).
size_t last_char(std::string_view s) {
  for (size_t back = std::min<size_t>(4, s.size()); back > 1; --back) {
    if (char_len(s, s.size() - back) == back) return s.size() - back;
  }
  return s.size() - 1;
}

}  // namespace

size_t char_len(std::string_view s, size_t at) {
  if (static_cast<uint8_t>(s[at]) < 0x80) return 1;
  const Utf8Step step = utf8_step(s, at);
  return step.kind == Utf8Kind::kOk ? step.len : 1;
}

int32_t char_at(std::string_view s, size_t at) {
  const auto byte = static_cast<uint8_t>(s[at]);
  if (byte < 0x80) return byte;
  const Utf8Step step = utf8_step(s, at);
  return step.kind == Utf8Kind::kOk ? static_cast<int32_t>(step.cp) : -1 - byte;
}

size_t count_chars(std::string_view s) {
  size_t n = 0;
  for (size_t at = 0; at < s.size(); at += char_len(s, at)) ++n;
  return n;
}

size_t char_offset(std::string_view s, size_t n) {
  size_t at = 0;
  for (; n > 0 && at < s.size(); --n) at += char_len(s, at);
  return at;
}

size_t find_bytes(std::string_view s, std::string_view what, size_t from) {
  constexpr size_t kShort = 16;
  if (from > s.size()) return std::string_view::npos;
  // Up to the first hit only: AddressSanitizer walks all that memmem is shown, at every call.
  if (what.size() <= kShort) return s.find(what, from);
  // Linear for any pattern.
  const void* hit = memmem(s.data() + from, s.size() - from, what.data(), what.size());
  return hit == nullptr ? std::string_view::npos
                        : static_cast<size_t>(static_cast<const char*>(hit) - s.data());
}

bool is_space(int32_t cp) {
  if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f);
  return cp == 0x85 || category(cp) == UTF8PROC_CATEGORY_ZS ||
         category(cp) == UTF8PROC_CATEGORY_ZL || category(cp) == UTF8PROC_CATEGORY_ZP;
}

bool is_printable(int32_t cp) {
  if (cp < 0 || cp == ' ') return cp == ' ';
  switch (category(cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

bool is_alpha(int32_t cp) {
  const utf8proc_category_t c = category(cp);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool is_digit(int32_t cp) { return category(cp) == UTF8PROC_CATEGORY_ND; }
bool is_upper(int32_t cp) { return category(cp) == UTF8PROC_CATEGORY_LU; }
bool is_lower(int32_t cp) { return category(cp) == UTF8PROC_CATEGORY_LL; }
int32_t to_upper(int32_t cp) { return cp < 0 ? cp : utf8proc_toupper(cp); }
int32_t to_lower(int32_t cp) { return cp < 0 ? cp : utf8proc_tolower(cp); }

bool TextBuilder::grow(size_t n_bytes) {
  if (failed()) return false;
  const size_t size = text_.bytes.size() + n_bytes;
  if (size < n_bytes || size > budget_.limits().max_text_bytes) {
    state_ = budget_.charge_text(budget_.limits().max_text_bytes + 1);
    return false;
  }
  if (size >= paid_) {  // paid in advance, so that short pieces cost no call
    state_ = budget_.charge(static_cast<int64_t>((size - paid_) / 16 + 4));
    paid_ = size + 64;
  }
  return state_.ok();
}

void TextBuilder::mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!text_.user.empty() && text_.user.back().end == begin) {
    text_.user.back().end = end;
  } else {
    text_.user.push_back({begin, end});
  }
}

void TextBuilder::append(std::string_view bytes, bool user) {
  if (!grow(bytes.size())) return;
  const size_t at = text_.bytes.size();
  text_.bytes += bytes;
  if (user) mark(at, at + bytes.size());
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  if (begin >= end || !grow(end - begin)) return;
  const size_t at = text_.bytes.size();
  text_.bytes.append(text.bytes, begin, end - begin);
  auto range = std::partition_point(text.user.begin(), text.user.end(),
                                    [&](const TextRange& r) { return r.end <= begin; });
  for (; range != text.user.end() && range->begin < end; ++range)
    mark(at + std::max(range->begin, begin) - begin, at + std::min(range->end, end) - begin);
}

void TextBuilder::append_char(int32_t cp, bool user) {
  if (cp < 0) {
    const char byte = static_cast<char>(-1 - cp);
    append({&byte, 1}, user);
    return;
  }
  std::string one;
  append_utf8(one, static_cast<uint32_t>(cp));
  append(one, user);
}

void TextBuilder::repeat(const Text& text, size_t times) {
  if (text.bytes.empty()) return;
  if (times > budget_.limits().max_text_bytes / text.bytes.size()) {
    grow(budget_.limits().max_text_bytes + 1);
    return;
  }
  while (times-- > 0 && !failed()) append(text);
}

Result<Text> TextBuilder::take() {
  if (failed()) return state_.error();
  paid_ = 0;
  return std::exchange(text_, {});
}

Result<TextPtr> TextBuilder::finish() {
  INFER_ASSIGN(Text text, take());
  return std::make_shared<const Text>(std::move(text));
}

TextPtr make_text(std::string bytes, bool user) {
  Text text{std::move(bytes), {}};
  if (user && !text.bytes.empty()) text.user.push_back({0, text.bytes.size()});
  return std::make_shared<const Text>(std::move(text));
}

Result<TextPtr> sub_text(Budget& budget, const TextPtr& text, size_t begin, size_t end) {
  if (begin == 0 && end == text->bytes.size()) return text;
  TextBuilder out(budget);
  out.append(*text, begin, end);
  return out.finish();
}

Result<TextPtr> concat(Budget& budget, const Text& a, const Text& b) {
  TextBuilder out(budget);
  out.append(a);
  out.append(b);
  return out.finish();
}

Result<TextPtr> strip_text(Budget& budget, const TextPtr& text, std::string_view chars, bool left,
                           bool right) {
  const std::string_view s = text->bytes;
  size_t begin = 0, end = s.size();
  const auto drops = [&](size_t at, size_t len) {
    return chars.empty() ? is_space(char_at(s, at)) : is_in(chars, s.substr(at, len));
  };
  int64_t n = 0;
  while (left && begin < end && drops(begin, char_len(s, begin))) {
    begin += char_len(s, begin);
    ++n;
  }
  while (right && begin < end) {
    const size_t at = last_char(s.substr(0, end));
    if (at < begin || !drops(at, end - at)) break;
    end = at;
    ++n;
  }
  INFER_TRY(budget.charge(n * static_cast<int64_t>(1 + chars.size()) / 16));
  return sub_text(budget, text, begin, end);
}

Result<TextPtr> replace_text(Budget& budget, const Text& text, const Text& from, const Text& to,
                             int64_t count) {
  const std::string_view s = text.bytes;
  TextBuilder out(budget);
  size_t at = 0;
  INFER_TRY(budget.charge(static_cast<int64_t>(s.size() / 16)));
  if (from.bytes.empty()) {  // between all characters, as Python does
    for (;; --count) {
      if (count != 0) out.append(to);
      if (at == s.size() || out.failed()) break;
      const size_t len = char_len(s, at);
      out.append(text, at, at + len);
      at += len;
      if (count == 0) count = 1;  // stays there
    }
    return out.finish();
  }
  for (; count != 0 && !out.failed(); --count) {
    const size_t hit = find_bytes(s, from.bytes, at);
    if (hit == std::string_view::npos) break;
    out.append(text, at, hit);
    out.append(to);
    at = hit + from.bytes.size();
  }
  out.append(text, at, s.size());
  return out.finish();
}

Result<TextPtr> change_case(Budget& budget, const Text& text, Case to) {
  const std::string_view s = text.bytes;
  TextBuilder out(budget);
  INFER_TRY(budget.charge(static_cast<int64_t>(s.size() / 2)));
  bool first = true;  // of the text or of a word
  auto range = text.user.begin();
  for (size_t at = 0; at < s.size() && !out.failed();) {
    const int32_t cp = char_at(s, at);
    while (range != text.user.end() && range->end <= at) ++range;
    const bool user = range != text.user.end() && range->begin <= at;
    bool up = to == Case::kUpper || first;
    if (to == Case::kLower) up = false;
    if (to == Case::kSwap) up = is_lower(cp);
    if (up && cp == kSharpS) {
      out.append(to == Case::kUpper || to == Case::kSwap ? "SS" : "Ss", user);
    } else {
      out.append_char(up ? to_upper(cp) : to_lower(cp), user);
    }
    if (to == Case::kTitle) {
      first = !is_cased(cp);
    } else {
      first = to == Case::kWords && splits_words(cp);
    }
    at += char_len(s, at);
  }
  return out.finish();
}

}  // namespace infer::text::jinja
