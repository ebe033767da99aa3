#include "core/text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

int depth_of(const Value& v) {
  if (v.is(Kind::kList)) return v.as_list()->depth;
  if (v.is(Kind::kDict)) return v.as_dict()->depth();
  return 0;
}

Result<int> deeper(const Budget& budget, int depth) {
  if (depth < budget.limits().max_value_depth) return depth + 1;
  return make_error(ErrorCode::kOutOfMemory, "a value nested deeper than {}",
                    budget.limits().max_value_depth);
}

/// Tuples as keys are short, or keys would be a way to work that is not paid for.
constexpr size_t kMaxTupleKey = 1024;

/// Equal keys give equal strings. False when the value cannot be a key.
bool append_key(std::string& out, const Value& key) {
  switch (key.kind()) {
    case Kind::kNone:
      out += 'n';
      return true;
    case Kind::kUndefined:
      out += 'u';
      return true;
    case Kind::kBool:
    case Kind::kInt:
      out += fmt::format("i{};", key.as_int());
      return true;
    case Kind::kFloat: {
      const double d = key.as_double();
      const bool whole = d == std::floor(d) && std::abs(d) < 0x1p63;
      out += whole ? fmt::format("i{};", static_cast<int64_t>(d)) : fmt::format("f{};", d);
      return true;
    }
    case Kind::kText:
      out += 's';
      out += key.bytes();
      return true;
    case Kind::kList: {
      if (key.as_list()->kind != ListKind::kTuple) return false;
      for (const Value& item : key.as_list()->items) {
        std::string one;
        if (item.is_text() && item.bytes().size() > kMaxTupleKey) return false;
        if (out.size() > kMaxTupleKey || !append_key(one, item)) return false;
        out += fmt::format("t{}:", one.size()) + one;
      }
      out += ')';
      return true;
    }
    default:
      return false;
  }
}

/// Exact, as Python compares ints with floats.
std::partial_ordering order_numbers(const Value& a, const Value& b) {
  if (a.is_int() && b.is_int()) return a.as_int() <=> b.as_int();
  const auto wide = [](const Value& v) {
    return v.is_int() ? static_cast<long double>(v.as_int())
                      : static_cast<long double>(v.as_double());
  };
  return wide(a) <=> wide(b);
}

/// What compares item by item with its like.
bool same_sequence(const Value& a, const Value& b) {
  if (!a.is(Kind::kList) || !b.is(Kind::kList)) return false;
  return a.as_list()->is_sequence() && a.as_list()->kind == b.as_list()->kind;
}

Result<bool> equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(key);
    if (other == nullptr) return false;
    INFER_ASSIGN(const bool same, equal(budget, value, *other));
    if (!same) return false;
  }
  return true;
}

Result<bool> equal_items(Budget& budget, const List& a, const List& b) {
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    INFER_ASSIGN(const bool same, equal(budget, a.items[i], b.items[i]));
    if (!same) return false;
  }
  return true;
}

Result<ListPtr> characters(Budget& budget, const TextPtr& text) {
  std::vector<Value> items;
  for (size_t at = 0; at < text->bytes.size();) {
    const size_t len = char_len(text->bytes, at);
    INFER_ASSIGN(TextPtr one, sub_text(budget, text, at, at + len));
    items.emplace_back(std::move(one));
    at += len;
  }
  INFER_ASSIGN(const Value list, make_list(budget, std::move(items)));
  return list.as_list();
}

}  // namespace

std::string_view Value::reason() const {
  const Reason& why = std::get<Reason>(v_);
  return why ? std::string_view(*why) : "a value is undefined";
}

const Value* Dict::find(std::string_view key) const {
  if (index_.empty()) {
    for (const auto& [k, v] : entries_) {
      if (k.is_text() && k.bytes() == key) return &v;
    }
    return nullptr;
  }
  const int64_t i = index_of("s" + std::string(key));
  return i < 0 ? nullptr : &entries_[static_cast<size_t>(i)].second;
}

const Value* Dict::find(const Value& key) const {
  if (key.is_text()) return find(key.bytes());
  std::string canonical;
  if (!append_key(canonical, key)) return nullptr;
  const int64_t i = index_of(canonical);
  return i < 0 ? nullptr : &entries_[static_cast<size_t>(i)].second;
}

int64_t Dict::index_of(std::string_view canonical) const {
  if (!index_.empty()) {
    const auto it = index_.find(std::string(canonical));
    return it == index_.end() ? -1 : static_cast<int64_t>(it->second);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    std::string one;
    append_key(one, entries_[i].first);
    if (one == canonical) return static_cast<int64_t>(i);
  }
  return -1;
}

Result<void> DictBuilder::set(const Value& key, Value value) {
  std::string canonical;
  if (!append_key(canonical, key))
    return make_error(ErrorCode::kInvalidArgument, "unhashable type: '{}'", type_name(key));
  INFER_TRY(budget_.charge(2));
  INFER_TRY(budget_.charge_text(canonical.size()));
  INFER_ASSIGN(const int depth, deeper(budget_, std::max(depth_of(key), depth_of(value))));
  dict_->depth_ = std::max(dict_->depth_, depth);
  const int64_t at = dict_->index_of(canonical);
  if (at >= 0) {
    dict_->entries_[static_cast<size_t>(at)].second = std::move(value);
    return {};
  }
  dict_->entries_.emplace_back(key, std::move(value));
  constexpr size_t kIndexed = 16;  // below, a walk is quicker
  if (dict_->size() == kIndexed) {
    for (size_t i = 0; i < kIndexed; ++i) {
      std::string one;
      append_key(one, dict_->entries_[i].first);
      dict_->index_[one] = i;
    }
  } else if (dict_->size() > kIndexed) {
    dict_->index_[canonical] = dict_->size() - 1;
  }
  return {};
}

Result<Value> DictBuilder::finish() {
  return Value(DictPtr(std::exchange(dict_, std::make_shared<Dict>())));
}

Result<Value> make_list(Budget& budget, std::vector<Value> items, ListKind kind) {
  INFER_TRY(budget.charge(1 + static_cast<int64_t>(items.size())));
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, depth_of(v));
  auto list = std::make_shared<List>();
  list->kind = kind;
  INFER_ASSIGN(list->depth, deeper(budget, depth));
  list->items = std::move(items);
  return Value(ListPtr(std::move(list)));
}

std::string_view type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kList: {
      constexpr std::string_view kNames[] = {"list",      "tuple",       "range",     "generator",
                                             "dict_keys", "dict_values", "dict_items"};
      return kNames[static_cast<size_t>(v.as_list()->kind)];
    }
    case Kind::kObject: {
      constexpr std::string_view kNames[] = {"Namespace", "LoopContext", "Macro", "function",
                                             "method"};
      return kNames[static_cast<size_t>(v.as_object()->kind)];
    }
  }
  return "";
}

bool is_true(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.as_int() != 0;
    case Kind::kFloat:
      return v.as_double() != 0.0;
    case Kind::kText:
      return !v.bytes().empty();
    case Kind::kList:
      return v.as_list()->kind == ListKind::kGenerator || !v.as_list()->items.empty();
    case Kind::kDict:
      return v.as_dict()->size() != 0;
    case Kind::kObject:
      return true;
  }
  return false;
}

Error undefined_error(const Value& v) {
  return make_error(ErrorCode::kInvalidArgument, "{}", v.reason());
}

Result<bool> equal(Budget& budget, const Value& a, const Value& b) {
  INFER_TRY(budget.charge(1));
  if (a.is_number() && b.is_number()) return std::is_eq(order_numbers(a, b));
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kText:
      INFER_TRY(budget.charge(static_cast<int64_t>(a.bytes().size() / 64)));
      return a.bytes() == b.bytes();
    case Kind::kList:
      if (a.as_list() == b.as_list()) return true;
      if (!same_sequence(a, b)) return false;
      return equal_items(budget, *a.as_list(), *b.as_list());
    case Kind::kDict:
      return equal_dicts(budget, *a.as_dict(), *b.as_dict());
    case Kind::kObject:
      return a.as_object() == b.as_object();
    default:
      return true;
  }
}

Result<std::partial_ordering> order(Budget& budget, const Value& a, const Value& b,
                                    std::string_view op) {
  INFER_TRY(budget.charge(1));
  if (a.is_number() && b.is_number()) return order_numbers(a, b);
  if (a.is_text() && b.is_text()) {
    INFER_TRY(budget.charge(static_cast<int64_t>(a.bytes().size() / 64)));
    return std::partial_ordering(a.bytes().compare(b.bytes()) <=> 0);
  }
  if (same_sequence(a, b) && a.as_list()->kind != ListKind::kRange) {
    const auto& x = a.as_list()->items;
    const auto& y = b.as_list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      INFER_ASSIGN(const bool same, equal(budget, x[i], y[i]));
      if (!same) return order(budget, x[i], y[i], op);
    }
    return std::partial_ordering(x.size() <=> y.size());
  }
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) return undefined_error(*v);
  }
  return make_error(ErrorCode::kInvalidArgument,
                    "'{}' not supported between instances of '{}' and '{}'", op, type_name(a),
                    type_name(b));
}

Result<bool> contains(Budget& budget, const Value& item, const Value& in) {
  if (in.is_text()) {
    if (item.is_undefined()) return undefined_error(item);
    if (!item.is_text())
      return make_error(ErrorCode::kInvalidArgument,
                        "'in <string>' requires string as left operand, not {}", type_name(item));
    INFER_TRY(budget.charge(1 + static_cast<int64_t>(in.bytes().size() / 16)));
    return find_bytes(in.bytes(), item.bytes(), 0) != std::string_view::npos;
  }
  if (in.is(Kind::kDict)) {
    std::string canonical;
    INFER_TRY(budget.charge(1 + (item.is_text() ? item.bytes().size() / 16 : 0)));
    if (!append_key(canonical, item))
      return make_error(ErrorCode::kInvalidArgument, "unhashable type: '{}'", type_name(item));
    return in.as_dict()->find(item) != nullptr;
  }
  INFER_ASSIGN(const ListPtr list, items_of(budget, in));
  for (const Value& v : list->items) {
    INFER_ASSIGN(const bool same, equal(budget, v, item));
    if (same) return true;
  }
  return false;
}

Result<ListPtr> items_of(Budget& budget, const Value& v) {
  static const ListPtr kEmpty = std::make_shared<const List>();
  switch (v.kind()) {
    case Kind::kList:
      return v.as_list();
    case Kind::kUndefined:
      return kEmpty;
    case Kind::kText:
      return characters(budget, v.as_text());
    case Kind::kDict: {
      std::vector<Value> keys;
      INFER_TRY(budget.charge(static_cast<int64_t>(v.as_dict()->size())));
      for (const auto& [key, value] : v.as_dict()->entries()) keys.push_back(key);
      INFER_ASSIGN(const Value list, make_list(budget, std::move(keys), ListKind::kKeys));
      return list.as_list();
    }
    default:
      return make_error(ErrorCode::kInvalidArgument, "'{}' object is not iterable", type_name(v));
  }
}

Result<int64_t> length_of(Budget& budget, const Value& v) {
  if (v.is_undefined()) return int64_t{0};
  if (v.is(Kind::kDict)) return static_cast<int64_t>(v.as_dict()->size());
  if (v.is_text()) {
    INFER_TRY(budget.charge(static_cast<int64_t>(v.bytes().size() / 16)));
    return static_cast<int64_t>(count_chars(v.bytes()));
  }
  if (v.is(Kind::kList) && v.as_list()->kind != ListKind::kGenerator)
    return static_cast<int64_t>(v.as_list()->items.size());
  return make_error(ErrorCode::kInvalidArgument, "object of type '{}' has no len()", type_name(v));
}

}  // namespace infer::text::jinja
