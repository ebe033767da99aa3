// v.name and v[key].

#include <fmt/format.h>

#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

Value missing(const Value& v, std::string_view name) {
  constexpr size_t kShown = 100;
  return Value::undefined(fmt::format("'{} object' has no attribute '{}'", type_name(v),
                                      name.substr(0, char_offset(name, kShown))));
}

const Value* object_attribute(const Value& v, std::string_view name, Value& made) {
  const Object& object = *v.as_object();
  if (object.kind == Object::Kind::kNamespace)
    return static_cast<const Namespace&>(object).find(name);
  if (object.kind == Object::Kind::kMacro && name == "name") {
    made = Value::text(static_cast<const Macro&>(object).def->name);
    return &made;
  }
  if (object.kind != Object::Kind::kLoop) return nullptr;
  const auto& loop = static_cast<const Loop&>(object);
  if (!loop.items) return nullptr;
  const auto n = static_cast<int64_t>(loop.items->items.size());
  const auto i = static_cast<int64_t>(loop.index0);
  const std::pair<std::string_view, Value> known[] = {
      {"index", Value(i + 1)},
      {"index0", Value(i)},
      {"revindex", Value(n - i)},
      {"revindex0", Value(n - i - 1)},
      {"first", Value(i == 0)},
      {"last", Value(i + 1 == n)},
      {"length", Value(n)},
      {"depth", Value(int64_t{1})},  // only recursive loops go deeper
      {"depth0", Value(int64_t{0})},
  };
  for (const auto& [key, value] : known) {
    if (key != name) continue;
    made = value;
    return &made;
  }
  if (name == "previtem")
    made =
        i > 0 ? loop.items->items[loop.index0 - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem")
    made =
        i + 1 < n ? loop.items->items[loop.index0 + 1] : Value::undefined("there is no next item");
  return name == "previtem" || name == "nextitem" ? &made : nullptr;
}

/// What Python's getattr finds. nullptr: nothing.
const Value* find_attribute(const Value& v, std::string_view name, Value& made) {
  if (v.is(Kind::kObject)) {
    if (name.starts_with('_')) {  // Jinja's sandbox
      made = Value::undefined(fmt::format("access to attribute '{}' is unsafe", name));
      return &made;
    }
    const Value* found = object_attribute(v, name, made);
    if (found != nullptr) return found;
  }
  const MethodDef* method = find_method(v, name);
  if (method == nullptr) return nullptr;
  if (method->fn == nullptr && method->fn_args == nullptr) {
    made = Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(v)));
  } else {
    made = Value(ObjectPtr(std::make_shared<Method>(v, method)));
  }
  return &made;
}

/// A namespace is searched one attribute after the other.
Result<void> charge_walk(Budget& budget, const Value& v) {
  if (!v.is(Kind::kObject) || v.as_object()->kind != Object::Kind::kNamespace) return {};
  const auto& ns = static_cast<const Namespace&>(*v.as_object());
  return budget.charge(static_cast<int64_t>(ns.attributes.size() / 4));
}

Result<Value> index_text(Budget& budget, const Value& v, int64_t i) {
  const std::string_view s = v.bytes();
  INFER_TRY(budget.charge(static_cast<int64_t>(s.size() / 16)));
  if (i < 0) i += static_cast<int64_t>(count_chars(s));
  const size_t at = i < 0 ? s.size() : char_offset(s, static_cast<size_t>(i));
  if (at >= s.size()) return Value::undefined("a string index out of range");
  INFER_ASSIGN(TextPtr one, sub_text(budget, v.as_text(), at, at + char_len(s, at)));
  return Value(std::move(one));
}

/// v[key] as Python's; false when there is no such item.
Result<bool> find_item(Budget& budget, const Value& v, const Value& key, Value& out) {
  if (v.is(Kind::kDict)) {
    if (key.is_text()) INFER_TRY(budget.charge(static_cast<int64_t>(key.bytes().size() / 16)));
    const Value* found = v.as_dict()->find(key);
    if (found != nullptr) out = *found;
    return found != nullptr;
  }
  if (!key.is_int()) return false;
  const int64_t i = key.as_int();
  if (v.is(Kind::kList) && v.as_list()->is_sequence()) {
    const auto& items = v.as_list()->items;
    const auto n = static_cast<int64_t>(items.size());
    if (i < -n || i >= n) return false;
    out = items[static_cast<size_t>(i < 0 ? i + n : i)];
    return true;
  }
  if (v.is_text()) {
    INFER_ASSIGN(out, index_text(budget, v, i));
    return !out.is_undefined();
  }
  return false;
}

}  // namespace

Result<Value> get_attribute(Interp& interp, const Value& v, std::string_view name) {
  if (v.is_undefined()) return undefined_error(v);
  INFER_TRY(charge_walk(interp.budget(), v));
  Value made;
  if (const Value* found = find_attribute(v, name, made)) return *found;
  if (v.is(Kind::kDict)) {
    INFER_TRY(interp.budget().charge(1));
    if (const Value* found = v.as_dict()->find(name)) return *found;
  }
  return missing(v, name);
}

Result<Value> get_item(Interp& interp, const Value& v, const Value& key) {
  if (v.is_undefined()) return undefined_error(v);
  INFER_TRY(charge_walk(interp.budget(), v));
  Value out;
  INFER_ASSIGN(const bool found, find_item(interp.budget(), v, key, out));
  if (found) return out;
  if (key.is_text()) {
    Value made;
    if (const Value* method = find_attribute(v, key.bytes(), made)) return *method;
    return missing(v, key.bytes());
  }
  if (key.is_int())
    return Value::undefined(fmt::format("'{} object' has no item {}", type_name(v), key.as_int()));
  return Value::undefined(fmt::format("'{} object' has no such item", type_name(v)));
}

}  // namespace infer::text::jinja
