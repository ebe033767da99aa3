// Filters over lists and mappings.

#include <algorithm>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/item_attribute.h"
#include "core/text/jinja/operators.h"
#include "core/text/jinja/text_util.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

bool flag(const Value* v) { return v != nullptr && is_true(*v); }

/// What items are compared by: an attribute of theirs, without case unless asked for.
Result<Value> sort_key(Interp& in, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = item;
  if (attribute != nullptr && !attribute->is_none()) {
    INFER_ASSIGN(key, item_attribute(in, item, *attribute));
  }
  if (case_sensitive || !key.is_text()) return key;
  return as_value(change_case(in.budget(), *key.as_text(), Case::kLower));
}

struct Keyed {
  Value key, item;
};

/// Stable. Errors: keys without an order.
Result<void> sort_keyed(Budget& budget, std::vector<Keyed>& rows, bool reverse) {
  Result<void> state;
  const auto less = [&](const Keyed& a, const Keyed& b) {
    if (!state.ok()) return false;
    const auto o = order(budget, a.key, b.key, "<");
    if (!o.ok()) {
      state = o.error();
      return false;
    }
    return std::is_lt(*o);
  };
  if (reverse) std::reverse(rows.begin(), rows.end());
  std::stable_sort(rows.begin(), rows.end(), less);
  if (reverse) std::reverse(rows.begin(), rows.end());
  return state;
}

Result<Value> items_of_rows(Budget& budget, std::vector<Keyed> rows) {
  std::vector<Value> out;
  out.reserve(rows.size());
  for (Keyed& row : rows) out.push_back(std::move(row.item));
  return make_list(budget, std::move(out));
}

Result<Value> sort(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  std::vector<Keyed> rows;
  for (const Value& item : items->items) {
    INFER_ASSIGN(Value key, sort_key(in, item, args[2], flag(args[1])));
    rows.push_back({std::move(key), item});
  }
  INFER_TRY(sort_keyed(in.budget(), rows, flag(args[0])));
  return items_of_rows(in.budget(), std::move(rows));
}

Result<Value> dictsort(Interp& in, const Value& v, const Bound& args) {
  if (v.is_undefined()) return undefined_error(v);
  if (!v.is(Kind::kDict))
    return make_error(ErrorCode::kInvalidArgument, "dictsort needs a mapping, not {}",
                      type_name(v));
  INFER_ASSIGN(const TextPtr by, text_arg("dictsort", args[1], "key"));
  if (by->bytes != "key" && by->bytes != "value")
    return make_error(ErrorCode::kInvalidArgument, "dictsort sorts by 'key' or 'value'");
  std::vector<Keyed> rows;
  for (const auto& [key, value] : v.as_dict()->entries()) {
    INFER_ASSIGN(Value row, make_list(in.budget(), {key, value}, ListKind::kTuple));
    INFER_ASSIGN(Value by_key,
                 sort_key(in, by->bytes == "key" ? key : value, nullptr, flag(args[0])));
    rows.push_back({std::move(by_key), std::move(row)});
  }
  INFER_TRY(sort_keyed(in.budget(), rows, flag(args[2])));
  return items_of_rows(in.budget(), std::move(rows));
}

Result<Value> unique(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  DictBuilder seen(in.budget());
  std::vector<Value> out;
  for (const Value& item : items->items) {
    INFER_ASSIGN(const Value key, sort_key(in, item, args[1], flag(args[0])));
    const size_t before = seen.size();
    INFER_TRY(seen.set(key, Value::none()));
    if (seen.size() > before) out.push_back(item);
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

/// The least (or greatest) item; Python keeps the first of equals.
template <bool kMax>
Result<Value> extreme(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  Value best = Value::undefined("the sequence was empty"), best_key;
  bool any = false;
  for (const Value& item : items->items) {
    INFER_ASSIGN(Value key, sort_key(in, item, args[1], flag(args[0])));
    bool better = !any;
    if (any) {
      INFER_ASSIGN(const std::partial_ordering o,
                   order(in.budget(), key, best_key, kMax ? ">" : "<"));
      better = kMax ? std::is_gt(o) : std::is_lt(o);
    }
    any = true;
    if (!better) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Result<Value> join(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  TextPtr between = make_text("");
  if (args[0] != nullptr) {
    INFER_ASSIGN(between, to_text(in.budget(), *args[0]));
  }
  TextBuilder out(in.budget());
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0) out.append(*between);
    Value item = items->items[i];
    if (args.given(1)) {
      INFER_ASSIGN(item, item_attribute(in, item, *args[1]));
    }
    INFER_ASSIGN(const TextPtr text, to_text(in.budget(), item));
    out.append(*text);
    INFER_TRY(out.state());
  }
  return as_value(out.finish());
}

Result<Value> first(Interp& in, const Value& v, const Bound&) {
  if (v.is_text() && !v.bytes().empty())
    return as_value(sub_text(in.budget(), v.as_text(), 0, char_len(v.bytes(), 0)));
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  if (items->items.empty()) return Value::undefined("no first item, the sequence was empty");
  return items->items.front();
}

Result<Value> last(Interp& in, const Value& v, const Bound&) {
  if (v.is(Kind::kList) && v.as_list()->kind == ListKind::kGenerator)
    return make_error(ErrorCode::kInvalidArgument, "'generator' object is not reversible");
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  if (items->items.empty()) return Value::undefined("no last item, the sequence was empty");
  return items->items.back();
}

Result<Value> length(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const int64_t n, length_of(in.budget(), v));
  return Value(n);
}

Result<Value> list(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  INFER_TRY(in.budget().charge(static_cast<int64_t>(items->items.size())));
  return make_list(in.budget(), items->items);
}

Result<Value> items(Interp& in, const Value& v, const Bound&) {
  std::vector<Value> out;
  if (!v.is_undefined()) {
    if (!v.is(Kind::kDict))
      return make_error(ErrorCode::kInvalidArgument, "items needs a mapping, not {}", type_name(v));
    for (const auto& [key, value] : v.as_dict()->entries()) {
      INFER_ASSIGN(Value row, make_list(in.budget(), {key, value}, ListKind::kTuple));
      out.push_back(std::move(row));
    }
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

Result<Value> reverse(Interp& in, const Value& v, const Bound&) {
  if (v.is_text()) {
    const Value back(int64_t{-1});
    return slice(in.budget(), v, nullptr, nullptr, &back);
  }
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  INFER_TRY(in.budget().charge(static_cast<int64_t>(items->items.size())));
  const bool generator = items->kind == ListKind::kGenerator;
  return make_list(in.budget(), {items->items.rbegin(), items->items.rend()},
                   generator ? ListKind::kList : ListKind::kGenerator);
}

Result<Value> sum(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  Value total = args[1] != nullptr ? *args[1] : Value(int64_t{0});
  if (total.is_text()) return make_error(ErrorCode::kInvalidArgument, "sum() cannot sum strings");
  for (Value item : items->items) {
    if (args.given(0)) {
      INFER_ASSIGN(item, item_attribute(in, item, *args[0]));
    }
    INFER_ASSIGN(total, arithmetic(in.budget(), Op::kAdd, total, item));
  }
  return total;
}

Result<Value> batch(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  INFER_ASSIGN(const int64_t n, int_arg("batch", args[0], 1));
  if (n < 1) return make_error(ErrorCode::kInvalidArgument, "batch needs a size above 0");
  const auto size = static_cast<size_t>(n);
  std::vector<Value> out, row;
  for (const Value& item : items->items) {
    row.push_back(item);
    if (row.size() < size) continue;
    INFER_ASSIGN(Value full, make_list(in.budget(), std::exchange(row, {})));
    out.push_back(std::move(full));
  }
  if (!row.empty()) {
    INFER_TRY(in.budget().charge(args.given(1) ? n : 0));
    if (args.given(1)) row.resize(size, *args[1]);
    INFER_ASSIGN(Value rest, make_list(in.budget(), std::move(row)));
    out.push_back(std::move(rest));
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

constexpr FilterDef kFilters[] = {
    {"length", {}, length},
    {"count", {}, length},
    {"join", {"d,attribute"}, join},
    {"first", {}, first},
    {"last", {}, last},
    {"list", {}, list},
    {"items", {}, items},
    {"sort", {"reverse,case_sensitive,attribute"}, sort},
    {"dictsort", {"case_sensitive,by,reverse"}, dictsort},
    {"unique", {"case_sensitive,attribute"}, unique},
    {"min", {"case_sensitive,attribute"}, extreme<false>},
    {"max", {"case_sensitive,attribute"}, extreme<true>},
    {"reverse", {}, reverse},
    {"sum", {"attribute,start"}, sum},
    {"batch", {"linecount,fill_with", 1}, batch},
};

}  // namespace

std::span<const FilterDef> list_filters() { return kFilters; }

}  // namespace infer::text::jinja
