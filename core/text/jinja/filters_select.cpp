// Filters that hand filters and tests on: map, select, reject and their kin.

#include <charconv>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/item_attribute.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

/// The arguments behind the first `n`.
Args rest_of(const Args& args, size_t n) {
  Args out;
  if (args.pos.size() > n)
    out.pos.assign(args.pos.begin() + static_cast<ptrdiff_t>(n), args.pos.end());
  out.named = args.named;
  return out;
}

Result<Value> map_attribute(Interp& in, const List& items, const Args& args) {
  const Value* attribute = nullptr;
  const Value* fallback = nullptr;
  for (const auto& [name, value] : args.named) {
    if (name == "attribute") {
      attribute = &value;
    } else if (name == "default") {
      fallback = &value;
    } else {
      return make_error(ErrorCode::kInvalidArgument, "map() takes no argument '{}'", name);
    }
  }
  if (attribute == nullptr)
    return make_error(ErrorCode::kInvalidArgument, "map() needs a filter or an attribute");
  std::vector<Value> out;
  for (const Value& item : items.items) {
    INFER_ASSIGN(Value v, item_attribute(in, item, *attribute));
    if (v.is_undefined() && fallback != nullptr) v = *fallback;
    out.push_back(std::move(v));
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

Result<Value> map(Interp& in, const Value& v, const Args& args) {
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  if (args.pos.empty()) return map_attribute(in, *items, args);
  INFER_ASSIGN(const TextPtr name, text_arg("map", &args.pos[0], ""));
  const FilterDef* filter = find_filter(name->bytes);
  const Args rest = rest_of(args, 1);
  std::vector<Value> out;
  for (const Value& item : items->items) {
    INFER_ASSIGN(Value mapped, in.apply_filter(filter, name->bytes, item, rest));
    out.push_back(std::move(mapped));
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

/// Keeps the items whose test (of themselves or of an attribute; none: truth) comes out as `kKeep`.
template <bool kKeep, bool kAttribute>
Result<Value> select(Interp& in, const Value& v, const Args& args) {
  constexpr size_t kTestAt = kAttribute ? 1 : 0;
  INFER_ASSIGN(const ListPtr items, items_of(in.budget(), v));
  if (kAttribute && args.pos.empty())
    return make_error(ErrorCode::kInvalidArgument, "selectattr() needs an attribute");
  TextPtr name = make_text("");
  const bool tests = args.pos.size() > kTestAt;
  if (tests) {
    INFER_ASSIGN(name, text_arg("select", &args.pos[kTestAt], ""));
  }
  const TestDef* test = find_test(name->bytes);
  const Args rest = rest_of(args, kTestAt + 1);
  std::vector<Value> out;
  for (const Value& item : items->items) {
    Value seen = item;
    if (kAttribute) {
      INFER_ASSIGN(seen, item_attribute(in, item, args.pos[0]));
    }
    bool holds = is_true(seen);
    if (tests) {
      INFER_ASSIGN(holds, in.apply_test(test, name->bytes, seen, rest));
    }
    INFER_TRY(in.budget().charge(1));
    if (holds == kKeep) out.push_back(item);
  }
  return make_list(in.budget(), std::move(out), ListKind::kGenerator);
}

constexpr FilterDef kFilters[] = {
    {"map", {}, nullptr, map},
    {"select", {}, nullptr, select<true, false>},
    {"reject", {}, nullptr, select<false, false>},
    {"selectattr", {}, nullptr, select<true, true>},
    {"rejectattr", {}, nullptr, select<false, true>},
};

}  // namespace

Result<Value> item_attribute(Interp& interp, const Value& item, const Value& attribute) {
  if (!attribute.is_text()) return get_item(interp, item, attribute);
  Value v = item;
  std::string_view rest = attribute.bytes();
  for (bool more = true; more;) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    const std::string_view part = rest.substr(0, dot);
    more = dot < rest.size();
    rest.remove_prefix(more ? dot + 1 : dot);
    int64_t index = 0;
    const auto got = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = !part.empty() && part[0] != '-' && got.ec == std::errc() &&
                        got.ptr == part.data() + part.size();
    INFER_TRY(interp.budget().charge_text(part.size()));
    INFER_ASSIGN(v, get_item(interp, v, number ? Value(index) : Value::text(std::string(part))));
  }
  return v;
}

std::span<const FilterDef> select_filters() { return kFilters; }

}  // namespace infer::text::jinja
