// Finds built-ins by name.

#include <algorithm>
#include <array>

#include "core/text/jinja/builtins.h"

namespace infer::text::jinja {
namespace {

template <class Def>
const Def* find_in(std::span<const Def> table, std::string_view name) {
  const auto at =
      std::find_if(table.begin(), table.end(), [&](const Def& d) { return d.name == name; });
  return at == table.end() ? nullptr : &*at;
}

}  // namespace

const FilterDef* find_filter(std::string_view name) {
  for (const auto table : {text_filters(), list_filters(), number_filters(), select_filters()}) {
    if (const FilterDef* found = find_in(table, name)) return found;
  }
  return nullptr;
}

const MethodDef* find_method(const Value& self, std::string_view name) {
  if (self.is_text()) {
    const MethodDef* found = find_in(text_methods(), name);
    return found != nullptr ? found : find_in(text_query_methods(), name);
  }
  if (self.is(Value::Kind::kDict)) return find_in(dict_methods(), name);
  if (self.is(Value::Kind::kList) && self.as_list()->is_sequence()) {
    const MethodDef* found = find_in(list_methods(), name);
    const bool fixed = self.as_list()->kind != ListKind::kList;
    return found != nullptr && fixed && found->fn == nullptr ? nullptr : found;
  }
  if (self.is(Value::Kind::kObject) && self.as_object()->kind == Object::Kind::kLoop)
    return find_in(loop_methods(), name);
  return nullptr;
}

}  // namespace infer::text::jinja
