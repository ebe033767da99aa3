// How values print: str() and repr() as Python's.

#include <charconv>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include "core/text/jinja/objects.h"
#include "core/text/jinja/value.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

constexpr int kMaxReprDepth = 100;  // a namespace can hold itself

void append_quoted(TextBuilder& out, const Text& text) {
  const std::string_view s = text.bytes;
  const bool user = !text.user.empty();
  const bool doubled = s.find('\'') != s.npos && s.find('"') == s.npos;
  const char quote = doubled ? '"' : '\'';
  out.append({&quote, 1}, user);
  for (size_t at = 0; at < s.size() && !out.failed();) {
    const size_t len = char_len(s, at);
    const int32_t cp = char_at(s, at);
    if (cp == quote || cp == '\\') {
      out.append("\\", user);
      out.append(s.substr(at, len), user);
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
      out.append(cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t", user);
    } else if (cp < 0 || is_printable(cp)) {
      out.append(s.substr(at, len), user);
    } else if (cp < 0x100) {
      out.append(fmt::format("\\x{:02x}", cp), user);
    } else {
      out.append(cp < 0x10000 ? fmt::format("\\u{:04x}", cp) : fmt::format("\\U{:08x}", cp), user);
    }
    at += len;
  }
  out.append({&quote, 1}, user);
}

void append_items(Budget& budget, TextBuilder& out, const List& list, int depth) {
  for (size_t i = 0; i < list.items.size() && !out.failed(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(budget, out, list.items[i], depth);
  }
}

void append_list(Budget& budget, TextBuilder& out, const Value& v, int depth) {
  const List& list = *v.as_list();
  if (list.kind == ListKind::kRange) {
    out.append(list.step == 1 ? fmt::format("range({}, {})", list.first, list.stop)
                              : fmt::format("range({}, {}, {})", list.first, list.stop, list.step));
  } else if (list.kind == ListKind::kGenerator) {
    out.append("<generator object>");
  } else if (list.kind == ListKind::kTuple) {
    out.append("(");
    append_items(budget, out, list, depth);
    out.append(list.items.size() == 1 ? ",)" : ")");
  } else {
    const bool plain = list.kind == ListKind::kList;
    if (!plain) out.append(fmt::format("{}(", type_name(v)));
    out.append("[");
    append_items(budget, out, list, depth);
    out.append(plain ? "]" : "])");
  }
}

template <class Entries>
void append_entries(Budget& budget, TextBuilder& out, const Entries& entries, int depth) {
  bool first = true;
  out.append("{");
  for (const auto& [key, value] : entries) {
    if (out.failed()) return;
    if (!first) out.append(", ");
    first = false;
    append_repr(budget, out, key, depth);
    out.append(": ");
    append_repr(budget, out, value, depth);
  }
  out.append("}");
}

void append_object(Budget& budget, TextBuilder& out, const Object& object, int depth) {
  if (object.kind == Object::Kind::kNamespace) {
    out.append("<Namespace ");
    append_entries(budget, out, static_cast<const Namespace&>(object).as_values(), depth);
    out.append(">");
  } else {
    out.append(describe(object));
  }
}

}  // namespace

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char digits[40];
  const auto end = std::to_chars(digits, digits + sizeof(digits), d, std::chars_format::scientific);
  const std::string_view text(digits, static_cast<size_t>(end.ptr - digits));
  const int exponent = static_cast<int>(std::strtol(text.data() + text.find('e') + 1, nullptr, 10));
  if (exponent >= 16 || exponent < -4) return std::string(text);
  char fixed[40];
  const auto stop = std::to_chars(fixed, fixed + sizeof(fixed), d, std::chars_format::fixed);
  std::string out(fixed, stop.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

void append_repr(Budget& budget, TextBuilder& out, const Value& v, int depth) {
  if (depth > kMaxReprDepth) {
    out.fail(make_error(ErrorCode::kOutOfMemory, "a value that holds itself"));
    return;
  }
  switch (v.kind()) {
    case Kind::kUndefined:
      out.append("Undefined");
      return;
    case Kind::kNone:
      out.append("None");
      return;
    case Kind::kBool:
      out.append(v.as_bool() ? "True" : "False");
      return;
    case Kind::kInt:
      out.append(fmt::format("{}", v.as_int()));
      return;
    case Kind::kFloat:
      out.append(float_repr(v.as_double()));
      return;
    case Kind::kText:
      append_quoted(out, *v.as_text());
      return;
    case Kind::kList:
      append_list(budget, out, v, depth + 1);
      return;
    case Kind::kDict:
      append_entries(budget, out, v.as_dict()->entries(), depth + 1);
      return;
    case Kind::kObject:
      append_object(budget, out, *v.as_object(), depth + 1);
      return;
  }
}

Result<TextPtr> to_repr(Budget& budget, const Value& v) {
  TextBuilder out(budget);
  append_repr(budget, out, v, 0);
  return out.finish();
}

Result<TextPtr> to_text(Budget& budget, const Value& v) {
  if (v.is_text()) return v.as_text();
  if (v.is_undefined()) return make_text("");
  return to_repr(budget, v);
}

}  // namespace infer::text::jinja
