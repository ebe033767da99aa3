#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/jinja/value.h"

/// Things with methods, and how functions are called.
namespace infer::text::jinja {

class Interp;
struct MacroDef;

struct Args {
  std::vector<Value> pos;
  std::vector<std::pair<std::string, Value>> named;
};

/// The most parameters that a built-in function, filter, test or method has.
inline constexpr size_t kMaxParams = 6;
/// Arguments in the order of the parameters; nullptr where the caller gave none.
struct Bound {
  const Value* v[kMaxParams] = {};
  const Value* operator[](size_t i) const { return v[i]; }
  /// Not given and None are the same.
  bool given(size_t i) const { return v[i] != nullptr && !v[i]->is_none(); }
};

/// A built-in: `params` are its parameter names, "width,first,blank"; the first `required` must be
/// given.
struct Params {
  std::string_view names;
  size_t required = 0;
};
/// Errors: too many, too few, unknown or doubled arguments.
Result<Bound> bind(std::string_view function, const Params& params, const Args& args);

/// Typed access to an argument; the errors name function and type.
Result<int64_t> int_arg(std::string_view function, const Value* v, int64_t fallback);
Result<TextPtr> text_arg(std::string_view function, const Value* v, std::string_view fallback);

struct Namespace : Object {
  Namespace() : Object(Kind::kNamespace) {}
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
  std::vector<std::pair<Value, Value>> as_values() const;
};

struct Loop : Object {
  Loop() : Object(Kind::kLoop) {}
  ListPtr items;  ///< nullptr after its end
  size_t index0 = 0;
  bool has_changed = false;
  std::vector<Value> last_change;
};

struct Frame {
  Frame* parent = nullptr;
  bool captured = false;  ///< a macro refers to it: it must stay
  std::vector<std::pair<std::string_view, Value>> vars;
};

struct Macro : Object {
  Macro(const MacroDef* d, Frame* s) : Object(Kind::kMacro), def(d), scope(s) {}
  const MacroDef* def;
  Frame* scope;
};

struct Function : Object {
  using Fn = Result<Value> (*)(Interp&, const Args&);
  Function(std::string_view n, Fn f) : Object(Kind::kFunction), name(n), fn(f) {}
  std::string_view name;
  Fn fn;
};

struct MethodDef {
  std::string_view name;
  Params params = {};
  Result<Value> (*fn)(Interp&, const Value& self, const Bound& args) = nullptr;
  /// In place of fn: for methods that take any number of arguments.
  Result<Value> (*fn_args)(Interp&, const Value& self, const Args& args) = nullptr;
};

struct Method : Object {
  Method(Value s, const MethodDef* d) : Object(Kind::kMethod), self(std::move(s)), def(d) {}
  const Value self;
  const MethodDef* def;
};

/// How it prints.
std::string describe(const Object& object);

}  // namespace infer::text::jinja
