// Methods of texts that answer a question, and the methods of everything else.

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

/// The part [start, end) of a text that a search looks at, in bytes.
struct Window {
  size_t begin, end;
};

Result<Window> window(Budget& budget, std::string_view s, const Value* start, const Value* end) {
  INFER_TRY(budget.charge(1 + static_cast<int64_t>(s.size() / 16)));
  const auto given = [](const Value* v) { return v != nullptr && !v->is_none(); };
  if (!given(start) && !given(end)) return Window{0, s.size()};
  const auto n = static_cast<int64_t>(count_chars(s));
  const auto clamp = [n](int64_t i) { return i < 0 ? std::max<int64_t>(i + n, 0) : i; };
  INFER_ASSIGN(const int64_t from, int_arg("find", given(start) ? start : nullptr, 0));
  INFER_ASSIGN(const int64_t to, int_arg("find", given(end) ? end : nullptr, n));
  if (clamp(from) > n || clamp(from) > clamp(to)) return Window{s.size() + 1, 0};  // nothing
  return Window{char_offset(s, static_cast<size_t>(clamp(from))),
                char_offset(s, static_cast<size_t>(std::min(clamp(to), n)))};
}

template <bool kStart>
Result<Value> has_affix(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const Window w, window(in.budget(), v.bytes(), args[1], args[2]));
  if (w.begin > v.bytes().size()) return Value(false);
  const std::string_view s = v.bytes().substr(w.begin, w.end - w.begin);
  std::vector<Value> wanted = {*args[0]};
  const bool tuple = args[0]->is(Kind::kList) && args[0]->as_list()->kind == ListKind::kTuple;
  if (tuple) wanted = args[0]->as_list()->items;
  for (const Value& one : wanted) {
    INFER_ASSIGN(const TextPtr affix, text_arg(kStart ? "startswith" : "endswith", &one, ""));
    INFER_TRY(in.budget().charge(1 + static_cast<int64_t>(affix->bytes.size() / 64)));
    if (kStart ? s.starts_with(affix->bytes) : s.ends_with(affix->bytes)) return Value(true);
  }
  return Value(false);
}

/// Position in characters; -1 when it is not there.
Result<int64_t> position(Budget& budget, const Value& v, const Bound& args, bool from_right) {
  const std::string_view s = v.bytes();
  INFER_ASSIGN(const TextPtr what, text_arg("find", args[0], ""));
  INFER_ASSIGN(const Window w, window(budget, s, args[1], args[2]));
  if (w.begin > s.size()) return int64_t{-1};
  const std::string_view part = s.substr(w.begin, w.end - w.begin);
  size_t hit = 0;
  if (from_right) {
    const auto m = static_cast<int64_t>(std::min<size_t>(what->bytes.size(), 1 << 20));
    INFER_TRY(budget.charge(static_cast<int64_t>(part.size()) * (1 + m) / 64));
    hit = part.rfind(what->bytes);
  } else {
    hit = find_bytes(part, what->bytes, 0);
  }
  if (hit == part.npos) return int64_t{-1};
  return static_cast<int64_t>(count_chars(s.substr(0, w.begin + hit)));
}

template <bool kFromRight, bool kMust>
Result<Value> find(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const int64_t at, position(in.budget(), v, args, kFromRight));
  if (kMust && at < 0) return make_error(ErrorCode::kInvalidArgument, "substring not found");
  return Value(at);
}

Result<Value> count(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const TextPtr what, text_arg("count", args[0], ""));
  INFER_ASSIGN(const Window w, window(in.budget(), v.bytes(), args[1], args[2]));
  if (w.begin > v.bytes().size()) return Value(int64_t{0});
  const std::string_view s = v.bytes().substr(w.begin, w.end - w.begin);
  if (what->bytes.empty()) return Value(static_cast<int64_t>(count_chars(s)) + 1);
  int64_t n = 0;
  for (size_t at = find_bytes(s, what->bytes, 0); at != s.npos;
       at = find_bytes(s, what->bytes, at + what->bytes.size()))
    ++n;
  INFER_TRY(in.budget().charge(n / 4));
  return Value(n);
}

bool is_alnum(int32_t cp) { return is_alpha(cp) || is_digit(cp); }
bool is_ascii(int32_t cp) { return cp >= 0 && cp < 0x80; }

/// Whether all characters are of a kind; an empty text is only where Python says so.
template <bool (*kIs)(int32_t), bool kEmpty>
Result<Value> all_are(Interp& in, const Value& v, const Bound&) {
  const std::string_view s = v.bytes();
  INFER_TRY(in.budget().charge(static_cast<int64_t>(s.size() / 8)));
  for (size_t at = 0; at < s.size(); at += char_len(s, at)) {
    if (!kIs(char_at(s, at))) return Value(false);
  }
  return Value(kEmpty || !s.empty());
}

template <bool kUpper>
Result<Value> in_case(Interp& in, const Value& v, const Bound& args) {
  (void)args;
  INFER_ASSIGN(const bool holds,
               in.apply_test(find_test(kUpper ? "upper" : "lower"), "upper", v, {}));
  return Value(holds);
}

constexpr MethodDef kTextMethods[] = {
    {"startswith", {"prefix,start,end", 1}, has_affix<true>},
    {"endswith", {"suffix,start,end", 1}, has_affix<false>},
    {"find", {"sub,start,end", 1}, find<false, false>},
    {"rfind", {"sub,start,end", 1}, find<true, false>},
    {"index", {"sub,start,end", 1}, find<false, true>},
    {"rindex", {"sub,start,end", 1}, find<true, true>},
    {"count", {"sub,start,end", 1}, count},
    {"isspace", {}, all_are<is_space, false>},
    {"isdigit", {}, all_are<is_digit, false>},
    {"isdecimal", {}, all_are<is_digit, false>},
    {"isnumeric", {}, all_are<is_digit, false>},
    {"isalpha", {}, all_are<is_alpha, false>},
    {"isalnum", {}, all_are<is_alnum, false>},
    {"isascii", {}, all_are<is_ascii, true>},
    {"isupper", {}, in_case<true>},
    {"islower", {}, in_case<false>},
};

Result<Value> dict_get(Interp& in, const Value& v, const Bound& args) {
  const Value& key = *args[0];
  INFER_TRY(in.budget().charge(key.is_text() ? static_cast<int64_t>(key.bytes().size() / 16) : 0));
  if (key.is(Kind::kDict) || (key.is(Kind::kList) && key.as_list()->kind == ListKind::kList))
    return make_error(ErrorCode::kInvalidArgument, "unhashable type: '{}'", type_name(key));
  if (const Value* found = v.as_dict()->find(key)) return *found;
  return args[1] != nullptr ? *args[1] : Value::none();
}

template <ListKind kView>
Result<Value> dict_view(Interp& in, const Value& v, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : v.as_dict()->entries()) {
    INFER_TRY(in.budget().charge(1));
    if (kView == ListKind::kItems) {
      INFER_ASSIGN(Value row, make_list(in.budget(), {key, value}, ListKind::kTuple));
      out.push_back(std::move(row));
    } else {
      out.push_back(kView == ListKind::kKeys ? key : value);
    }
  }
  return make_list(in.budget(), std::move(out), kView);
}

Result<Value> itself(Interp&, const Value& v, const Bound&) { return v; }

// Without a function: what changes its object is out of reach in Jinja's immutable sandbox.
constexpr MethodDef kDictMethods[] = {
    {"get", {"-,-", 1}, dict_get},
    {"items", {}, dict_view<ListKind::kItems>},
    {"keys", {}, dict_view<ListKind::kKeys>},
    {"values", {}, dict_view<ListKind::kValues>},
    {"copy", {}, itself},
    {"clear"},
    {"pop"},
    {"popitem"},
    {"setdefault"},
    {"update"},
};

Result<Value> list_count(Interp& in, const Value& v, const Bound& args) {
  int64_t n = 0;
  for (const Value& item : v.as_list()->items) {
    INFER_ASSIGN(const bool same, equal(in.budget(), item, *args[0]));
    n += same;
  }
  return Value(n);
}

Result<Value> list_index(Interp& in, const Value& v, const Bound& args) {
  const auto& items = v.as_list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    INFER_ASSIGN(const bool same, equal(in.budget(), items[i], *args[0]));
    if (same) return Value(static_cast<int64_t>(i));
  }
  return make_error(ErrorCode::kInvalidArgument, "the value is not in the list");
}

constexpr MethodDef kListMethods[] = {
    {"count", {"value", 1}, list_count},
    {"index", {"value", 1}, list_index},
    {"append"},
    {"clear"},
    {"extend"},
    {"insert"},
    {"pop"},
    {"remove"},
    {"reverse"},
    {"sort"},
};

Result<Value> cycle(Interp&, const Value& v, const Args& args) {
  const auto& loop = static_cast<const Loop&>(*v.as_object());
  if (args.pos.empty())
    return make_error(ErrorCode::kInvalidArgument, "no items for cycling given");
  return args.pos[loop.index0 % args.pos.size()];
}

Result<Value> changed(Interp& in, const Value& v, const Args& args) {
  auto& loop = static_cast<Loop&>(*v.as_object());
  bool same = loop.has_changed && loop.last_change.size() == args.pos.size();
  for (size_t i = 0; same && i < args.pos.size(); ++i) {
    INFER_ASSIGN(same, equal(in.budget(), loop.last_change[i], args.pos[i]));
  }
  if (same) return Value(false);
  loop.has_changed = true;
  loop.last_change = args.pos;
  return Value(true);
}

constexpr MethodDef kLoopMethods[] = {
    {"cycle", {}, nullptr, cycle},
    {"changed", {}, nullptr, changed},
};

}  // namespace

std::span<const MethodDef> text_query_methods() { return kTextMethods; }
std::span<const MethodDef> dict_methods() { return kDictMethods; }
std::span<const MethodDef> list_methods() { return kListMethods; }
std::span<const MethodDef> loop_methods() { return kLoopMethods; }

}  // namespace infer::text::jinja
