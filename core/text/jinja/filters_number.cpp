// Filters of numbers, and those of any value.

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/numbers.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

std::string_view stripped(std::string_view s) {
  const auto space = [](char c) { return is_space(static_cast<uint8_t>(c)); };
  while (!s.empty() && space(s.front())) s.remove_prefix(1);
  while (!s.empty() && space(s.back())) s.remove_suffix(1);
  return s;
}

/// Digits without the single underscores between them; empty when they stand elsewhere.
std::string without_underscores(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_') {
      out += s[i];
    } else if (i == 0 || i + 1 == s.size() || s[i - 1] == '_') {
      return "";
    }
  }
  return out;
}

Result<Value> default_value(Interp&, const Value& v, const Bound& args) {
  const bool falsy = args[1] != nullptr && is_true(*args[1]) && !is_true(v);
  if (!v.is_undefined() && !falsy) return v;
  return args[0] != nullptr ? *args[0] : Value::text("");
}

Result<Value> to_int(Interp& in, const Value& v, const Bound& args) {
  const Value fallback = args[0] != nullptr ? *args[0] : Value(int64_t{0});
  INFER_ASSIGN(const int64_t base, int_arg("int", args[1], 10));
  if (v.is_undefined()) return undefined_error(v);
  if (v.is_int()) return Value(v.as_int());
  double d = std::nan("");
  if (v.is_text()) {
    constexpr size_t kLongest = 1000;
    INFER_TRY(in.budget().charge_text(v.bytes().size()));
    if (v.bytes().size() > kLongest) return fallback;
    if (const auto i = parse_int(v.bytes(), base)) return Value(*i);
    if (const auto f = parse_float(v.bytes())) d = *f;
  } else if (v.is(Kind::kFloat)) {
    d = v.as_double();
    if (std::isinf(d))
      return make_error(ErrorCode::kInvalidArgument, "cannot convert float infinity to integer");
  }
  if (!std::isfinite(d)) return fallback;
  if (!(std::abs(d) < 0x1p63))
    return make_error(ErrorCode::kUnsupported, "an integer of more than 64 bits");
  return Value(static_cast<int64_t>(d));
}

Result<Value> to_float(Interp& in, const Value& v, const Bound& args) {
  const Value fallback = args[0] != nullptr ? *args[0] : Value(0.0);
  if (v.is_undefined()) return undefined_error(v);
  if (v.is_number()) return Value(v.as_double());
  if (v.is_text()) {
    INFER_TRY(in.budget().charge_text(v.bytes().size()));
    if (const auto f = parse_float(v.bytes())) return Value(*f);
  }
  return fallback;
}

Result<Value> absolute(Interp& in, const Value& v, const Bound&) {
  if (v.is(Kind::kFloat)) return Value(std::abs(v.as_double()));
  if (v.is_int() && v.as_int() >= 0) return Value(v.as_int());
  (void)in;
  return negate(v, true);
}

Result<Value> round_number(Interp&, const Value& v, const Bound& args) {
  INFER_ASSIGN(const int64_t precision, int_arg("round", args[0], 0));
  INFER_ASSIGN(const TextPtr method, text_arg("round", args[1], "common"));
  constexpr int64_t kMost = 300;
  if (v.is_undefined()) return undefined_error(v);
  if (!v.is_number())
    return make_error(ErrorCode::kInvalidArgument, "round needs a number, not {}", type_name(v));
  if (precision > kMost || precision < -kMost)
    return make_error(ErrorCode::kInvalidArgument, "round: a precision out of range");
  const double d = v.as_double();
  if (method->bytes == "common") {
    if (v.is_int() && precision >= 0) return Value(v.as_int());
    if (!std::isfinite(d)) return v;
    if (precision < 0) {
      const double unit = std::pow(10.0, static_cast<double>(-precision));
      const double rounded = std::nearbyint(d / unit) * unit;
      return v.is_int() ? Value(static_cast<int64_t>(rounded)) : Value(rounded);
    }
    // Digits of the exact value, halves to even, as Python rounds.
    const std::string digits = fmt::format("{:.{}f}", d, precision);
    double out = 0.0;
    std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return Value(out);
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  if (method->bytes == "ceil") return Value(std::ceil(d * unit) / unit);
  if (method->bytes == "floor") return Value(std::floor(d * unit) / unit);
  return make_error(ErrorCode::kInvalidArgument, "round: the method is common, ceil or floor");
}

Result<Value> attr(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr name, text_arg("attr", args[0], ""));
  if (v.is(Kind::kDict) && find_method(v, name->bytes) == nullptr)
    return Value::undefined(
        fmt::format("'dict object' has no attribute '{}'", name->bytes.substr(0, 100)));
  return get_attribute(in, v, name->bytes);
}

constexpr FilterDef kFilters[] = {
    {"default", {"default_value,boolean"}, default_value},
    {"d", {"default_value,boolean"}, default_value},
    {"int", {"default,base"}, to_int},
    {"float", {"default"}, to_float},
    {"abs", {}, absolute},
    {"round", {"precision,method"}, round_number},
    {"attr", {"name", 1}, attr},
};

}  // namespace

std::optional<int64_t> parse_int(std::string_view s, int64_t base) {
  s = stripped(s);
  bool minus = false;
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    minus = s[0] == '-';
    s.remove_prefix(1);
  }
  const char prefix = s.size() > 2 && s[0] == '0' ? static_cast<char>(s[1] | 0x20) : '\0';
  const int64_t named = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    base = named;
    s.remove_prefix(2);
    if (s[0] == '_') s.remove_prefix(1);
  } else if (base == 0) {
    if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0_") != s.npos) return std::nullopt;
    base = 10;
  }
  const std::string digits = without_underscores(s);
  if (digits.empty() || digits[0] == '-' || base < 2 || base > 36) return std::nullopt;
  int64_t out = 0;
  const std::string with_sign = (minus ? "-" : "") + digits;
  const char* end = with_sign.data() + with_sign.size();
  const auto got = std::from_chars(with_sign.data(), end, out, static_cast<int>(base));
  if (got.ec != std::errc() || got.ptr != end) return std::nullopt;
  return out;
}

std::optional<double> parse_float(std::string_view s) {
  std::string digits = without_underscores(stripped(s));
  if (!digits.empty() && digits[0] == '+' && digits.find_first_of("+-", 1) != 1) digits.erase(0, 1);
  double out = 0.0;
  const char* end = digits.data() + digits.size();
  const auto got = std::from_chars(digits.data(), end, out);
  if (digits.empty() || got.ptr != end) return std::nullopt;
  if (got.ec == std::errc::result_out_of_range) {  // Python gives 0 or inf
    const bool small = digits.find("e-") != digits.npos || digits.find("E-") != digits.npos;
    return small ? 0.0 : digits[0] == '-' ? -HUGE_VAL : HUGE_VAL;
  }
  if (got.ec != std::errc()) return std::nullopt;
  return out;
}

std::span<const FilterDef> number_filters() { return kFilters; }

}  // namespace infer::text::jinja
