#include "core/text/jinja/objects.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/ast.h"

namespace infer::text::jinja {
namespace {

/// Position of `name` in "a,b,c", kMaxParams when it is none of them.
size_t find_param(std::string_view names, std::string_view name) {
  for (size_t i = 0; !names.empty(); ++i) {
    const size_t comma = std::min(names.find(','), names.size());
    if (names.substr(0, comma) == name) return i;
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
  return kMaxParams;
}

size_t count_params(std::string_view names) {
  return names.empty() ? 0 : 1 + static_cast<size_t>(std::count(names.begin(), names.end(), ','));
}

}  // namespace

Result<Bound> bind(std::string_view function, const Params& params, const Args& args) {
  Bound out;
  const size_t n = count_params(params.names);
  if (args.pos.size() > n) {
    return make_error(ErrorCode::kInvalidArgument, "{}() takes at most {} arguments, not {}",
                      function, n, args.pos.size());
  }
  for (size_t i = 0; i < args.pos.size(); ++i) out.v[i] = &args.pos[i];
  for (const auto& [name, value] : args.named) {
    const size_t at = find_param(params.names, name);
    if (at == kMaxParams)
      return make_error(ErrorCode::kInvalidArgument, "{}() takes no argument '{}'", function, name);
    if (out.v[at] != nullptr)
      return make_error(ErrorCode::kInvalidArgument, "{}() got two values for '{}'", function,
                        name);
    out.v[at] = &value;
  }
  for (size_t i = 0; i < params.required; ++i) {
    if (out.v[i] == nullptr)
      return make_error(ErrorCode::kInvalidArgument, "{}() needs {} arguments", function,
                        params.required);
  }
  return out;
}

Result<int64_t> int_arg(std::string_view function, const Value* v, int64_t fallback) {
  if (v == nullptr) return fallback;
  if (v->is_int()) return v->as_int();
  if (v->is_undefined()) return undefined_error(*v);
  return make_error(ErrorCode::kInvalidArgument, "{}() needs an integer, not {}", function,
                    type_name(*v));
}

Result<TextPtr> text_arg(std::string_view function, const Value* v, std::string_view fallback) {
  if (v == nullptr) return make_text(std::string(fallback));
  if (v->is_text()) return v->as_text();
  if (v->is_undefined()) return undefined_error(*v);
  return make_error(ErrorCode::kInvalidArgument, "{}() needs a string, not {}", function,
                    type_name(*v));
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [known, value] : attributes) {
    if (known == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [known, old] : attributes) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  attributes.emplace_back(name, std::move(value));
}

std::vector<std::pair<Value, Value>> Namespace::as_values() const {
  std::vector<std::pair<Value, Value>> out;
  for (const auto& [name, value] : attributes) out.emplace_back(Value::text(name), value);
  return out;
}

std::string describe(const Object& object) {
  switch (object.kind) {
    case Object::Kind::kLoop: {
      const auto& loop = static_cast<const Loop&>(object);
      return fmt::format("<LoopContext {}/{}>", loop.index0 + 1,
                         loop.items ? loop.items->items.size() : 0);
    }
    case Object::Kind::kMacro:
      return fmt::format("<Macro '{}'>", static_cast<const Macro&>(object).def->name);
    case Object::Kind::kFunction:
      return fmt::format("<function {}>", static_cast<const Function&>(object).name);
    case Object::Kind::kMethod: {
      const auto& method = static_cast<const Method&>(object);
      return fmt::format("<built-in method {} of {} object>", method.def->name,
                         type_name(method.self));
    }
    case Object::Kind::kNamespace:
      break;
  }
  return "<Namespace>";
}

}  // namespace infer::text::jinja
