// Filters that make texts.

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/json.h"
#include "core/text/jinja/operators.h"
#include "core/text/jinja/text_util.h"

namespace infer::text::jinja {
namespace {

template <Case kTo>
Result<Value> cased(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  return as_value(change_case(in.budget(), *text, kTo));
}

Result<Value> trim(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  TextPtr chars = make_text("");
  if (args.given(0)) {
    INFER_ASSIGN(chars, text_arg("trim", args[0], ""));
    if (chars->bytes.empty()) return Value(text);
  }
  return as_value(strip_text(in.budget(), text, chars->bytes, true, true));
}

Result<Value> replace(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  INFER_ASSIGN(const TextPtr from, to_text(in.budget(), *args[0]));
  INFER_ASSIGN(const TextPtr to, to_text(in.budget(), *args[1]));
  INFER_ASSIGN(const int64_t count, int_arg("replace", args.given(2) ? args[2] : nullptr, -1));
  return as_value(replace_text(in.budget(), *text, *from, *to, count));
}

Result<Value> string(Interp& in, const Value& v, const Bound&) {
  return as_value(to_text(in.budget(), v));
}

Result<Value> escape(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  TextBuilder out(in.budget());
  constexpr std::string_view kSpecial = "&<>'\"";
  constexpr std::string_view kNames[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  const std::string& s = text->bytes;
  for (size_t at = 0; at < s.size() && !out.failed();) {
    const size_t stop = std::min(s.find_first_of(kSpecial, at), s.size());
    out.append(*text, at, stop);
    if (stop == s.size()) break;
    out.append(kNames[kSpecial.find(s[stop])], overlaps(text->user, stop, stop + 1));
    at = stop + 1;
  }
  return as_value(out.finish());
}

Result<Value> indent(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  const bool first = args[1] != nullptr && is_true(*args[1]);
  const bool blank = args[2] != nullptr && is_true(*args[2]);
  TextPtr margin;
  if (args[0] != nullptr && args[0]->is_text()) {
    margin = args[0]->as_text();
  } else {
    INFER_ASSIGN(const int64_t width, int_arg("indent", args[0], 4));
    TextBuilder spaces(in.budget());
    spaces.repeat({" ", {}}, static_cast<size_t>(std::max<int64_t>(width, 0)));
    INFER_ASSIGN(margin, spaces.finish());
  }
  TextBuilder out(in.budget());
  const std::string with_end = text->bytes + "\n";
  const auto lines = split_lines(with_end, false);
  for (size_t i = 0; i < lines.size() && !out.failed(); ++i) {
    const auto [begin, end] = lines[i];
    if (i > 0) out.append("\n");
    if (i == 0 ? first : (blank || end > begin)) out.append(*margin);
    out.append(*text, begin, std::min(end, text->bytes.size()));
  }
  return as_value(out.finish());
}

Result<Value> center(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  INFER_ASSIGN(const int64_t width, int_arg("center", args[0], 80));
  return padded(in.budget(), *text, width, " ", 0);
}

Result<Value> truncate(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  INFER_ASSIGN(const int64_t length, int_arg("truncate", args[0], 255));
  INFER_ASSIGN(const TextPtr end, text_arg("truncate", args[2], "..."));
  INFER_ASSIGN(const int64_t leeway, int_arg("truncate", args.given(3) ? args[3] : nullptr, 5));
  const auto n = static_cast<int64_t>(count_chars(text->bytes));
  const int64_t room = length - static_cast<int64_t>(count_chars(end->bytes));
  constexpr int64_t kMost = 1 << 30;
  if (room < 0 || leeway < 0 || length > kMost || leeway > kMost)
    return make_error(ErrorCode::kInvalidArgument, "truncate: a length out of range");
  if (n <= length + leeway) return Value(text);
  size_t stop = char_offset(text->bytes, static_cast<size_t>(room));
  if (args[1] == nullptr || !is_true(*args[1]))
    stop = std::min(stop, std::string_view(text->bytes).substr(0, stop).rfind(' '));
  INFER_ASSIGN(const TextPtr head, sub_text(in.budget(), text, 0, stop));
  return as_value(concat(in.budget(), *head, *end));
}

/// "..."|format(a, b, x=1).
Result<Value> format(Interp& in, const Value& v, const Args& args) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  if (!args.named.empty()) {
    if (!args.pos.empty())
      return make_error(ErrorCode::kInvalidArgument, "format: either positions or names");
    DictBuilder dict(in.budget());
    for (const auto& [name, value] : args.named) INFER_TRY(dict.set(Value::text(name), value));
    INFER_ASSIGN(const Value named, dict.finish());
    return format_percent(in.budget(), *text, named);
  }
  INFER_ASSIGN(const Value tuple, make_list(in.budget(), args.pos, ListKind::kTuple));
  return format_percent(in.budget(), *text, tuple);
}

/// transformers' own: tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False).
Result<Value> tojson(Interp& in, const Value& v, const Bound& args) {
  JsonStyle style;
  style.ascii = args[0] != nullptr && is_true(*args[0]);
  style.sort_keys = args[3] != nullptr && is_true(*args[3]);
  if (args.given(1)) {
    style.pretty = true;
    style.item_separator = ",";
    if (args[1]->is_text()) {
      style.indent = args[1]->bytes();
    } else {
      constexpr int64_t kWidest = 100;
      INFER_ASSIGN(const int64_t width, int_arg("tojson", args[1], 0));
      if (width > kWidest)
        return make_error(ErrorCode::kInvalidArgument, "tojson: an indent above {}", kWidest);
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (args.given(2)) {
    const Value& pair = *args[2];
    const bool fits = pair.is(Value::Kind::kList) && pair.as_list()->items.size() == 2 &&
                      pair.as_list()->items[0].is_text() && pair.as_list()->items[1].is_text();
    if (!fits) return make_error(ErrorCode::kInvalidArgument, "tojson: separators are two texts");
    style.item_separator = pair.as_list()->items[0].bytes();
    style.key_separator = pair.as_list()->items[1].bytes();
  }
  return as_value(to_json(in.budget(), v, style));
}

constexpr FilterDef kFilters[] = {
    {"trim", {"chars"}, trim},
    {"tojson", {"ensure_ascii,indent,separators,sort_keys"}, tojson},
    {"upper", {}, cased<Case::kUpper>},
    {"lower", {}, cased<Case::kLower>},
    {"capitalize", {}, cased<Case::kCapitalize>},
    {"title", {}, cased<Case::kWords>},
    {"replace", {"old,new,count", 2}, replace},
    {"indent", {"width,first,blank"}, indent},
    {"string", {}, string},
    {"safe", {}, string},
    {"e", {}, escape},
    {"escape", {}, escape},
    {"forceescape", {}, escape},
    {"center", {"width"}, center},
    {"truncate", {"length,killwords,end,leeway"}, truncate},
    {"format", {}, nullptr, format},
};

}  // namespace

std::span<const FilterDef> text_filters() { return kFilters; }

}  // namespace infer::text::jinja
