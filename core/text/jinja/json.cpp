#include "core/text/jinja/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "core/text/unicode.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

class Writer {
 public:
  Writer(Budget& budget, const JsonStyle& style) : style_(style), out_(budget) {}

  Result<TextPtr> finish() { return out_.finish(); }

  void write(const Value& v) {
    if (out_.failed()) return;
    switch (v.kind()) {
      case Kind::kNone:
        out_.append("null");
        return;
      case Kind::kBool:
        out_.append(v.as_bool() ? "true" : "false");
        return;
      case Kind::kInt:
        out_.append(fmt::format("{}", v.as_int()));
        return;
      case Kind::kFloat:
        out_.append(number(v.as_double()));
        return;
      case Kind::kText:
        write_text(*v.as_text());
        return;
      case Kind::kDict:
        write_dict(*v.as_dict());
        return;
      case Kind::kList:
        if (v.as_list()->kind == ListKind::kList || v.as_list()->kind == ListKind::kTuple) {
          write_list(*v.as_list());
          return;
        }
        break;
      default:
        break;
    }
    out_.fail(make_error(ErrorCode::kInvalidArgument,
                         "tojson: an object of type {} is not JSON serializable", type_name(v)));
  }

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return float_repr(d);
  }

  void new_line() {
    if (!style_.pretty) return;
    out_.append("\n");
    for (int i = 0; i < level_; ++i) out_.append(style_.indent);
  }

  void write_list(const List& list) {
    out_.append("[");
    ++level_;
    for (size_t i = 0; i < list.items.size() && !out_.failed(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line();
      write(list.items[i]);
    }
    --level_;
    if (!list.items.empty()) new_line();
    out_.append("]");
  }

  void write_dict(const Dict& dict) {
    std::vector<std::pair<TextPtr, const Value*>> rows;
    for (const auto& [key, value] : dict.entries()) rows.emplace_back(key_text(key), &value);
    if (style_.sort_keys) {
      std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
        return a.first->bytes < b.first->bytes;
      });
    }
    out_.append("{");
    ++level_;
    for (size_t i = 0; i < rows.size() && !out_.failed(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line();
      write_text(*rows[i].first);
      out_.append(style_.key_separator);
      write(*rows[i].second);
    }
    --level_;
    if (!rows.empty()) new_line();
    out_.append("}");
  }

  TextPtr key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::kText:
        return key.as_text();
      case Kind::kNone:
        return make_text("null");
      case Kind::kBool:
        return make_text(key.as_bool() ? "true" : "false");
      case Kind::kInt:
        return make_text(fmt::format("{}", key.as_int()));
      case Kind::kFloat:
        return make_text(number(key.as_double()));
      default:
        out_.fail(
            make_error(ErrorCode::kInvalidArgument, "tojson: keys must not be {}", type_name(key)));
        return make_text("");
    }
  }

  void write_text(const Text& text) {
    const bool user = !text.user.empty();
    const std::string_view s = text.bytes;
    out_.append("\"");
    for (size_t at = 0; at < s.size() && !out_.failed();) {
      size_t end = at;  // a run without escapes
      while (end < s.size() && !needs_escape(s[end])) ++end;
      out_.append(s.substr(at, end - at), user);
      at = end;
      if (at == s.size()) break;
      const size_t len = char_len(s, at);
      const int32_t cp = char_at(s, at);
      out_.append(escape(cp, s.substr(at, len)), user);
      at += len;
    }
    out_.append("\"");
  }

  bool needs_escape(char c) const {
    return static_cast<uint8_t>(c) < 0x20 || c == '"' || c == '\\' ||
           (style_.ascii && static_cast<uint8_t>(c) >= 0x80);
  }

  static std::string escape(int32_t cp, std::string_view bytes) {
    switch (cp) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\b':
        return "\\b";
      case '\f':
        return "\\f";
      default:
        break;
    }
    if (cp < 0) return std::string(bytes);
    if (cp < 0x10000) return fmt::format("\\u{:04x}", cp);
    const int32_t rest = cp - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
  }

  const JsonStyle& style_;
  TextBuilder out_;
  int level_ = 0;
};

class Parser {
 public:
  Parser(Budget& budget, std::string_view json) : budget_(budget), s_(json) {}

  Result<Value> parse() {
    INFER_ASSIGN(Value v, value(0));
    skip_space();
    if (at_ != s_.size()) return fail("nothing more");
    return v;
  }

 private:
  Error fail(std::string_view wanted) const {
    return make_error(ErrorCode::kInvalidArgument, "JSON: expected {} at byte {}", wanted, at_);
  }
  char peek() const { return at_ < s_.size() ? s_[at_] : '\0'; }
  void skip_space() {
    while (at_ < s_.size() && (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t'))
      ++at_;
  }
  bool take(std::string_view word) {
    if (s_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  bool take_after_space(std::string_view word) {
    skip_space();
    return take(word);
  }

  Result<Value> value(int depth) {
    if (depth >= budget_.limits().max_value_depth) return fail("less nesting");
    INFER_TRY(budget_.charge(1));
    skip_space();
    if (take("null")) return Value::none();
    if (take("true")) return Value(true);
    if (take("false")) return Value(false);
    switch (peek()) {
      case '"': {
        INFER_ASSIGN(TextPtr text, string());
        return Value(std::move(text));
      }
      case '[':
        return array(depth);
      case '{':
        return object(depth);
      default:
        return number();
    }
  }

  Result<Value> array(int depth) {
    std::vector<Value> items;
    ++at_;
    if (!take_after_space("]")) {
      for (;;) {
        INFER_ASSIGN(Value item, value(depth + 1));
        items.push_back(std::move(item));
        if (take_after_space("]")) break;
        if (!take(",")) return fail("',' or ']'");
      }
    }
    return make_list(budget_, std::move(items));
  }

  Result<Value> object(int depth) {
    DictBuilder dict(budget_);
    ++at_;
    if (take_after_space("}")) return dict.finish();
    for (;;) {
      skip_space();
      if (peek() != '"') return fail("a key");
      INFER_ASSIGN(TextPtr key, string());
      if (!take_after_space(":")) return fail("':'");
      INFER_ASSIGN(Value item, value(depth + 1));
      INFER_TRY(dict.set(Value(std::move(key)), std::move(item)));
      if (take_after_space("}")) break;
      if (!take(",")) return fail("',' or '}'");
    }
    return dict.finish();
  }

  Result<Value> number() {
    const size_t begin = at_;
    const auto digits = [&] {
      const size_t from = at_;
      while (peek() >= '0' && peek() <= '9') ++at_;
      return at_ > from;
    };
    take("-");
    const bool zero = peek() == '0';
    const size_t first = at_;
    if (!digits() || (zero && at_ > first + 1)) return fail("a value");
    bool whole = true;
    if (take(".")) {
      whole = false;
      if (!digits()) return fail("a digit");
    }
    if (take("e") || take("E")) {
      whole = false;
      if (!take("+")) take("-");
      if (!digits()) return fail("a digit");
    }
    const char* from = s_.data() + begin;
    const char* to = s_.data() + at_;
    if (whole) {
      int64_t i = 0;
      if (std::from_chars(from, to, i).ec != std::errc()) return fail("an integer of 64 bits");
      return Value(i);
    }
    double d = 0;
    if (std::from_chars(from, to, d).ec != std::errc()) return fail("a number in range");
    return Value(d);
  }

  Result<TextPtr> string() {
    std::string out;
    for (++at_; peek() != '"';) {
      if (at_ >= s_.size() || static_cast<uint8_t>(peek()) < 0x20)
        return fail("the end of a string");
      if (peek() != '\\') {
        out += s_[at_++];
        continue;
      }
      ++at_;
      INFER_TRY(escaped(out));
    }
    ++at_;
    INFER_TRY(budget_.charge_text(out.size()));
    return make_text(std::move(out), true);
  }

  Result<void> escaped(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const char c = peek();
    const size_t known = c == '\0' ? kNames.npos : kNames.find(c);
    ++at_;
    if (known != kNames.npos) {
      out += kValues[known];
      return {};
    }
    --at_;
    if (!take("u")) return fail("a known escape");
    INFER_ASSIGN(uint32_t cp, hex4());
    if (cp >= 0xd800 && cp < 0xdc00) {
      if (!take("\\u")) return fail("the second half of a surrogate pair");
      INFER_ASSIGN(const uint32_t low, hex4());
      if (low < 0xdc00 || low > 0xdfff) return fail("the second half of a surrogate pair");
      cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    } else if (cp >= 0xdc00 && cp <= 0xdfff) {
      return fail("no lone surrogate");
    }
    append_utf8(out, cp);
    return {};
  }

  Result<uint32_t> hex4() {
    uint32_t cp = 0;
    const std::string_view digits = s_.substr(std::min(at_, s_.size()), 4);
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), cp, 16);
    if (digits.size() != 4 || end.ptr != digits.data() + 4) return fail("four hex digits");
    at_ += 4;
    return cp;
  }

  Budget& budget_;
  const std::string_view s_;
  size_t at_ = 0;
};

}  // namespace

Result<TextPtr> to_json(Budget& budget, const Value& v, const JsonStyle& style) {
  Writer writer(budget, style);
  writer.write(v);
  return writer.finish();
}

Result<Value> parse_json(Budget& budget, std::string_view json) {
  INFER_TRY(budget.charge_text(json.size()));
  return Parser(budget, json).parse();
}

}  // namespace infer::text::jinja
