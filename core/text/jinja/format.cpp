// "%" of texts, and the time.

#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

constexpr int kMaxWidth = 1000;

struct Spec {
  bool left = false, zero = false, plus = false, space = false, alternate = false;
  int width = 0, precision = -1;
  char type = 's';
};

Error bad_format(std::string_view why) {
  return make_error(ErrorCode::kInvalidArgument, "format: {}", why);
}

/// Arguments of one "%": a tuple gives its items, a mapping its values by name, anything else
/// itself.
class PercentArgs {
 public:
  explicit PercentArgs(const Value& v) : v_(v) {
    is_tuple_ = v.is(Kind::kList) && v.as_list()->kind == ListKind::kTuple;
  }
  Result<Value> take() {
    const size_t n = is_tuple_ ? v_.as_list()->items.size() : 1;
    if (used_ >= n) return bad_format("not enough arguments");
    const size_t i = used_++;
    return is_tuple_ ? v_.as_list()->items[i] : v_;
  }
  Result<Value> named(std::string_view name) {
    by_name_ = true;
    const Value* found = v_.is(Kind::kDict) ? v_.as_dict()->find(name) : nullptr;
    if (found == nullptr) return bad_format(fmt::format("no argument '{}'", name));
    return *found;
  }
  Result<void> finish() const {
    if (by_name_ || v_.is(Kind::kDict) || used_ == (is_tuple_ ? v_.as_list()->items.size() : 1))
      return {};
    if (!is_tuple_ && v_.is(Kind::kList)) return {};
    return bad_format("not all arguments converted");
  }

 private:
  const Value& v_;
  bool is_tuple_ = false, by_name_ = false;
  size_t used_ = 0;
};

Result<int> small_int(std::string_view s, size_t& at) {
  int out = 0;
  for (; at < s.size() && s[at] >= '0' && s[at] <= '9'; ++at) {
    out = out * 10 + (s[at] - '0');
    if (out > kMaxWidth) return bad_format("a width that is too large");
  }
  return out;
}

Result<Spec> read_spec(std::string_view s, size_t& at) {
  Spec spec;
  for (; at < s.size(); ++at) {
    if (s[at] == '-') {
      spec.left = true;
    } else if (s[at] == '0') {
      spec.zero = true;
    } else if (s[at] == '+') {
      spec.plus = true;
    } else if (s[at] == ' ') {
      spec.space = true;
    } else if (s[at] == '#') {
      spec.alternate = true;
    } else {
      break;
    }
  }
  INFER_ASSIGN(spec.width, small_int(s, at));
  if (at < s.size() && s[at] == '.') {
    ++at;
    INFER_ASSIGN(spec.precision, small_int(s, at));
  }
  if (at >= s.size()) return bad_format("it ends inside of a '%'");
  spec.type = s[at++];
  return spec;
}

Result<std::string> number_digits(const Spec& spec, const Value& v) {
  if (v.is_undefined()) return undefined_error(v);
  if (!v.is_number())
    return bad_format(fmt::format("%{} needs a number, not {}", spec.type, type_name(v)));
  if (spec.type == 'd' || spec.type == 'i' || spec.type == 'u') {
    const double d = v.as_double();
    if (v.is(Kind::kFloat) && !(std::abs(d) < 0x1p63)) return bad_format("a number out of range");
    return fmt::format("{}", v.is_int() ? v.as_int() : static_cast<int64_t>(d));
  }
  if (spec.type == 'x' || spec.type == 'X' || spec.type == 'o') {
    if (!v.is_int()) return bad_format("an integer is needed");
    if (spec.type == 'o') return fmt::format("{:o}", v.as_int());
    return spec.type == 'x' ? fmt::format("{:x}", v.as_int()) : fmt::format("{:X}", v.as_int());
  }
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  switch (spec.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", v.as_double(), precision);
    case 'e':
      return fmt::format("{:.{}e}", v.as_double(), precision);
    case 'g':
      return fmt::format("{:.{}g}", v.as_double(), precision);
    default:
      return bad_format(fmt::format("unknown type '%{}'", spec.type));
  }
}

void pad(TextBuilder& out, const Spec& spec, const Text& text, bool number) {
  const size_t n = count_chars(text.bytes);
  const size_t fill = n < static_cast<size_t>(spec.width) ? static_cast<size_t>(spec.width) - n : 0;
  const bool zeros = number && spec.zero && !spec.left;
  if (zeros) {
    const bool sign = !text.bytes.empty() && (text.bytes[0] == '-' || text.bytes[0] == '+');
    if (sign) out.append(text, 0, 1);
    out.append(std::string(fill, '0'));
    out.append(text, sign ? 1 : 0, text.bytes.size());
    return;
  }
  if (!spec.left) out.append(std::string(fill, ' '));
  out.append(text);
  if (spec.left) out.append(std::string(fill, ' '));
}

Result<void> append_one(Budget& budget, TextBuilder& out, const Spec& spec, const Value& v) {
  if (spec.type == 's' || spec.type == 'r') {
    INFER_ASSIGN(TextPtr text, spec.type == 's' ? to_text(budget, v) : to_repr(budget, v));
    if (spec.precision >= 0) {
      const size_t end = char_offset(text->bytes, static_cast<size_t>(spec.precision));
      INFER_ASSIGN(text, sub_text(budget, text, 0, end));
    }
    pad(out, spec, *text, false);
    return {};
  }
  INFER_ASSIGN(std::string digits, number_digits(spec, v));
  if (spec.plus && digits[0] != '-') digits.insert(0, 1, '+');
  if (spec.space && !spec.plus && digits[0] != '-') digits.insert(0, 1, ' ');
  pad(out, spec, *make_text(std::move(digits)), true);
  return {};
}

}  // namespace

Result<Value> format_percent(Budget& budget, const Text& format, const Value& args) {
  const std::string_view s = format.bytes;
  TextBuilder out(budget);
  PercentArgs values(args);
  for (size_t at = 0; at < s.size() && !out.failed();) {
    const size_t sign = std::min(s.find('%', at), s.size());
    out.append(format, at, sign);
    if (sign == s.size()) break;
    at = sign + 1;
    if (at < s.size() && s[at] == '%') {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    std::string_view name;
    const bool named = at < s.size() && s[at] == '(';
    if (named) {
      const size_t close = s.find(')', at);
      if (close == s.npos) return bad_format("a name without ')'");
      name = s.substr(at + 1, close - at - 1);
      at = close + 1;
    }
    INFER_ASSIGN(const Spec spec, read_spec(s, at));
    INFER_ASSIGN(const Value v, named ? values.named(name) : values.take());
    INFER_TRY(append_one(budget, out, spec, v));
  }
  INFER_TRY(values.finish());
  INFER_ASSIGN(TextPtr text, out.finish());
  return Value(std::move(text));
}

namespace {

struct Date {
  int64_t year;
  int month, day, weekday, yearday;  // month and day from 1, Sunday 0, yearday from 1
  int hour, minute, second;
};

/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
Date date_of(int64_t unix_s) {
  int64_t days = unix_s / 86400, rest = unix_s % 86400;
  if (rest < 0) {
    rest += 86400;
    --days;
  }
  const int64_t z = days + 719468;
  const int64_t era = (z >= 0 ? z : z - 146096) / 146097;
  const int64_t doe = z - era * 146097;
  const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  const int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  const int64_t mp = (5 * doy + 2) / 153;
  Date d{};
  d.day = static_cast<int>(doy - (153 * mp + 2) / 5 + 1);
  d.month = static_cast<int>(mp < 10 ? mp + 3 : mp - 9);
  d.year = yoe + era * 400 + (d.month <= 2 ? 1 : 0);
  d.weekday = static_cast<int>(((days % 7) + 11) % 7);  // 1970-01-01 was a Thursday
  const bool leap = (d.year % 4 == 0 && d.year % 100 != 0) || d.year % 400 == 0;
  constexpr int kBefore[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  d.yearday = kBefore[d.month - 1] + d.day + (leap && d.month > 2 ? 1 : 0);
  d.hour = static_cast<int>(rest / 3600);
  d.minute = static_cast<int>(rest / 60 % 60);
  d.second = static_cast<int>(rest % 60);
  return d;
}

constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};
constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};

/// One directive; with `pad` "-" (%-d) its number is not filled up.
std::string directive(const Date& d, int64_t unix_s, char c, std::string_view pad) {
  const auto two = [&](int n, std::string_view usual = "0") {
    const std::string_view fill = pad == "-" ? "" : usual;
    return n < 10 ? fmt::format("{}{}", fill, n) : fmt::format("{}", n);
  };
  const auto all = [&](std::string_view format) { return format_time(unix_s, format); };
  switch (c) {
    case 'Y':
      return fmt::format("{}", d.year);
    case 'y':
      return two(static_cast<int>(((d.year % 100) + 100) % 100));
    case 'm':
      return two(d.month);
    case 'd':
      return two(d.day);
    case 'e':
      return two(d.day, " ");
    case 'H':
      return two(d.hour);
    case 'k':
      return two(d.hour, " ");
    case 'I':
      return two((d.hour + 11) % 12 + 1);
    case 'l':
      return two((d.hour + 11) % 12 + 1, " ");
    case 'M':
      return two(d.minute);
    case 'S':
      return two(d.second);
    case 'f':
      return "000000";
    case 'j':
      return pad == "-" ? fmt::format("{}", d.yearday) : fmt::format("{:03}", d.yearday);
    case 'p':
      return d.hour < 12 ? "AM" : "PM";
    case 'A':
      return std::string(kDays[d.weekday]);
    case 'a':
      return std::string(kDays[d.weekday].substr(0, 3));
    case 'B':
      return std::string(kMonths[d.month - 1]);
    case 'b':
    case 'h':
      return std::string(kMonths[d.month - 1].substr(0, 3));
    case 'u':
      return fmt::format("{}", d.weekday == 0 ? 7 : d.weekday);
    case 'w':
      return fmt::format("{}", d.weekday);
    case 's':
      return fmt::format("{}", unix_s);
    case 'F':
      return all("%Y-%m-%d");
    case 'T':
      return all("%H:%M:%S");
    case 'R':
      return all("%H:%M");
    case 'D':
    case 'x':
      return all("%m/%d/%y");
    case 'X':
      return all("%H:%M:%S");
    case 'c':
      return all("%a %b %e %H:%M:%S %Y");
    case 'r':
      return all("%I:%M:%S %p");
    case 'n':
      return "\n";
    case 't':
      return "\t";
    case '%':
      return "%";
    case 'z':
    case 'Z':
      return "";  // as Python's for a time without a zone
    default:
      return fmt::format("%{}{}", pad, c);
  }
}

}  // namespace

std::string format_time(int64_t unix_s, std::string_view format) {
  constexpr int64_t kYear9999 = 253402300799;
  unix_s = std::min(std::max<int64_t>(unix_s, -62135596800), kYear9999);
  const Date d = date_of(unix_s);
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const bool dash = format[i + 1] == '-' && i + 2 < format.size();
    if (dash) ++i;
    out += directive(d, unix_s, format[++i], dash ? "-" : "");
  }
  return out;
}

}  // namespace infer::text::jinja
