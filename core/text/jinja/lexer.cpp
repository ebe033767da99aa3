#include "core/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/text_value.h"
#include "core/text/unicode.h"

namespace infer::text::jinja {
namespace {

constexpr size_t kMaxName = 256;

bool is_digit10(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_part(char c) { return is_name_start(c) || is_digit10(c); }

/// "\r\n" and "\r" become "\n", and the last one goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

size_t skip_spaces(std::string_view s, size_t at) {
  while (at < s.size() && is_space(char_at(s, at))) at += char_len(s, at);
  return at;
}

bool all_space(std::string_view s) { return skip_spaces(s, 0) == s.size(); }

std::string_view strip_right(std::string_view s) {
  size_t end = 0;
  for (size_t at = 0; at < s.size();) {
    const size_t len = char_len(s, at);
    if (!is_space(char_at(s, at))) end = at + len;
    at += len;
  }
  return s.substr(0, end);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), s_(source_) {}

  Result<std::vector<Token>> run() {
    while (at_ < s_.size()) INFER_TRY(root());
    push(TokenType::kEnd);
    return std::move(tokens_);
  }

 private:
  Error fail(std::string_view message) const { return error_at(line_, message); }
  bool looking_at(std::string_view word) const { return s_.substr(at_, word.size()) == word; }

  Token& push(TokenType type, std::string_view text = {}) {
    tokens_.push_back({.type = type, .line = line_, .text = std::string(text)});
    return tokens_.back();
  }
  void advance_to(size_t end) {
    line_ += static_cast<int>(std::count(s_.begin() + static_cast<ptrdiff_t>(at_),
                                         s_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    line_starting_ = end > at_ ? s_[end - 1] == '\n' : line_starting_;
    at_ = end;
  }

  /// The text up to the next tag, and the tag's beginning.
  Result<void> root() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = s_.find('{', tag);
      if (tag == s_.npos || tag + 1 >= s_.size()) {
        data(s_.substr(at_));
        advance_to(s_.size());
        return {};
      }
      const char c = s_[tag + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const char kind = s_[tag + 1];
    const char sign = tag + 2 < s_.size() ? s_[tag + 2] : '\0';
    data(before_tag(s_.substr(at_, tag - at_), kind, sign));
    advance_to(tag);
    size_t inside = tag + 2;
    if (sign == '-' || sign == '+') ++inside;
    if (kind == '#') return comment(inside);
    if (kind == '%') {
      size_t end = 0;
      if (is_raw(inside, "raw", end)) return raw(end);
    }
    advance_to(inside);
    push(kind == '{' ? TokenType::kVarBegin : TokenType::kBlockBegin);
    return expression(kind == '{');
  }

  void data(std::string_view text) {
    if (!text.empty()) push(TokenType::kData, text);
  }

  /// White space control at the beginning of a tag.
  std::string_view before_tag(std::string_view text, char kind, char sign) const {
    if (sign == '-') return strip_right(text);
    if (sign == '+' || kind == '{') return text;
    const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
    if ((line_begin > 0 || line_starting_) && all_space(text.substr(line_begin)))
      return text.substr(0, line_begin);
    return text;
  }

  /// Where a tag's end ("%}" or "#}", with its sign) at `at` leads: behind the white space it
  /// takes along.
  size_t after_end(size_t at, std::string_view end) const {
    if (s_[at] == '-') return skip_spaces(s_, at + 1 + end.size());
    if (s_[at] == '+') return at + 1 + end.size();
    at += end.size();
    return at < s_.size() && s_[at] == '\n' ? at + 1 : at;
  }

  Result<void> comment(size_t from) {
    size_t end = s_.find("#}", from);
    if (end == s_.npos) return fail("a comment without end");
    if (end > from && (s_[end - 1] == '-' || s_[end - 1] == '+')) --end;
    advance_to(after_end(end, "#}"));
    return {};
  }

  /// "{%- raw -%}" whose name would stand at `at`; `end` is the position behind the tag.
  bool is_raw(size_t at, std::string_view name, size_t& end) const {
    at = skip_spaces(s_, at);
    if (s_.substr(at, name.size()) != name) return false;
    at = skip_spaces(s_, at + name.size());
    if (s_.substr(at, 3) == "-%}") {
      end = skip_spaces(s_, at + 3);
    } else if (s_.substr(at, 2) == "%}") {
      end = at + 2;
    } else {
      return false;
    }
    return true;
  }

  Result<void> raw(size_t body) {
    advance_to(body);
    for (size_t tag = at_;; ++tag) {
      tag = s_.find("{%", tag);
      if (tag == s_.npos) return fail("a raw block without end");
      const char sign = tag + 2 < s_.size() ? s_[tag + 2] : '\0';
      size_t at = skip_spaces(s_, tag + 2 + (sign == '-' || sign == '+' ? 1 : 0));
      if (s_.substr(at, 6) != "endraw") continue;
      at = skip_spaces(s_, at + 6);
      const bool signed_end = at < s_.size() && (s_[at] == '-' || s_[at] == '+');
      if (s_.substr(at + (signed_end ? 1 : 0), 2) != "%}") continue;
      data(before_tag(s_.substr(at_, tag - at_), '%', sign));
      advance_to(after_end(at, "%}"));
      return {};
    }
  }

  /// Tokens up to the tag's end.
  Result<void> expression(bool variable) {
    const std::string_view end = variable ? "}}" : "%}";
    std::string open;  // brackets
    for (;;) {
      advance_to(skip_spaces(s_, at_));
      if (at_ >= s_.size()) return fail("a tag without end");
      if (open.empty() && ends_here(end, variable)) return {};
      const char c = s_[at_];
      if (is_digit10(c)) {
        INFER_TRY(number());
      } else if (is_name_start(c)) {
        size_t stop = at_;
        while (stop < s_.size() && is_name_part(s_[stop])) ++stop;
        if (stop - at_ > kMaxName) return fail("a name that is too long");
        push(TokenType::kName, s_.substr(at_, stop - at_));
        advance_to(stop);
      } else if (c == '\'' || c == '"') {
        INFER_TRY(string(c));
      } else {
        INFER_TRY(op(open));
      }
    }
  }

  bool ends_here(std::string_view end, bool variable) {
    const bool sign = s_[at_] == '-' || (!variable && s_[at_] == '+');
    if (s_.substr(at_ + (sign ? 1 : 0), 2) != end) return false;
    push(variable ? TokenType::kVarEnd : TokenType::kBlockEnd);
    if (variable) {
      advance_to(sign ? skip_spaces(s_, at_ + 3) : at_ + 2);
    } else {
      advance_to(after_end(at_, end));
    }
    return true;
  }

  Result<void> op(std::string& open) {
    constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    for (const std::string_view two : kTwo) {
      if (!looking_at(two)) continue;
      push(TokenType::kOperator, two);
      advance_to(at_ + 2);
      return {};
    }
    const char c = s_[at_];
    if (std::strchr("+-/*%~[](){}><=.:|,;", c) == nullptr || c == '\0') {
      return fail(is_printable(static_cast<uint8_t>(c)) && static_cast<uint8_t>(c) < 0x7f
                      ? fmt::format("unexpected character '{}'", c)
                      : fmt::format("unexpected byte 0x{:02x}", static_cast<uint8_t>(c)));
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) return fail(fmt::format("unexpected '{}'", c));
      if (open.back() != c)
        return fail(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    push(TokenType::kOperator, s_.substr(at_, 1));
    advance_to(at_ + 1);
    return {};
  }

  /// End of the digits (with single '_' between them) at `at`.
  size_t digits_end(size_t at) const {
    while (at < s_.size() &&
           (is_digit10(s_[at]) || (s_[at] == '_' && at + 1 < s_.size() && is_digit10(s_[at + 1]))))
      ++at;
    return at;
  }

  Result<void> number() {
    size_t end = digits_end(at_);
    bool whole = true;
    const auto digit_at = [&](size_t i) { return i < s_.size() && is_digit10(s_[i]); };
    const bool after_dot = at_ > 0 && s_[at_ - 1] == '.';
    if (!after_dot) {
      if (end < s_.size() && s_[end] == '.' && digit_at(end + 1)) {
        end = digits_end(end + 1);
        whole = false;
      }
      if (end < s_.size() && (s_[end] == 'e' || s_[end] == 'E')) {
        const bool sign = end + 1 < s_.size() && (s_[end + 1] == '+' || s_[end + 1] == '-');
        if (digit_at(end + 1 + sign)) {
          end = digits_end(end + 1 + sign);
          whole = false;
        }
      }
    }
    std::string digits(s_.substr(at_, end - at_));
    std::erase(digits, '_');
    const char* to = digits.data() + digits.size();
    if (!whole) {
      Token& t = push(TokenType::kFloat, digits);
      if (std::from_chars(digits.data(), to, t.number).ec != std::errc())
        return fail("a number out of range");
    } else {
      int base = 10;
      const char prefix = at_ + 1 < s_.size() ? static_cast<char>(s_[at_ + 1] | 0x20) : '\0';
      if (s_[at_] == '0' && (prefix == 'x' || prefix == 'o' || prefix == 'b')) {
        base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2;
        end = at_ + 2;
        while (end < s_.size() && (is_name_part(s_[end]))) ++end;
        digits = s_.substr(at_ + 2, end - at_ - 2);
        std::erase(digits, '_');
        to = digits.data() + digits.size();
      } else if (s_[at_] == '0' && digits.find_first_not_of('0') != digits.npos) {
        return fail("an integer that begins with 0");
      }
      Token& t = push(TokenType::kInt, digits);
      const auto got = std::from_chars(digits.data(), to, t.integer, base);
      if (got.ec != std::errc() || got.ptr != to) return fail("an integer of more than 64 bits");
    }
    advance_to(end);
    return {};
  }

  Result<void> string(char quote) {
    size_t end = at_ + 1;
    while (end < s_.size() && s_[end] != quote) end += s_[end] == '\\' ? 2 : 1;
    if (end >= s_.size()) return fail("a string without end");
    Token& t = push(TokenType::kString);
    const std::string_view body = s_.substr(at_ + 1, end - at_ - 1);
    for (size_t i = 0; i < body.size();) {
      if (body[i] != '\\') {
        t.text += body[i++];
      } else if (!unescape(body, i, t.text)) {
        return fail("a string with a broken escape");
      }
    }
    advance_to(end + 1);
    return {};
  }

  /// Python's escapes; what is none stays as it is.
  static bool unescape(std::string_view s, size_t& i, std::string& out) {
    constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    const char c = s[i + 1];
    if (c == '\n') {
      i += 2;
      return true;
    }
    if (const size_t known = kNames.find(c); known != kNames.npos) {
      out += kValues[known];
      i += 2;
      return true;
    }
    uint32_t cp = 0;
    size_t n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (n > 0) {
      const std::string_view hex = s.substr(i + 2, n);
      const auto got = std::from_chars(hex.data(), hex.data() + hex.size(), cp, 16);
      if (hex.size() != n || got.ptr != hex.data() + n) return false;
      if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) return false;
      i += 2 + n;
      append_utf8(out, cp);
      return true;
    }
    if (c >= '0' && c <= '7') {
      for (++i; n < 3 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n)
        cp = cp * 8 + static_cast<uint32_t>(s[i++] - '0');
      append_utf8(out, cp);
      return true;
    }
    if (c == 'N') return false;
    out += '\\';
    ++i;
    return true;
  }

  const std::string source_;
  const std::string_view s_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

Error error_at(int line, std::string_view message) {
  std::string shown(message);
  for (char& c : shown) {  // names and values of the template are in it
    if (static_cast<uint8_t>(c) < 0x20) c = ' ';
  }
  return make_error(ErrorCode::kInvalidArgument, "line {}: {}", line, shown);
}

Result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace infer::text::jinja
