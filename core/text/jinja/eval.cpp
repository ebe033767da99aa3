// Expressions: what a template says.

#include <fmt/format.h>

#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

/// What a walk over n names costs.
int64_t walk_cost(size_t n) { return static_cast<int64_t>(n / 4); }

}  // namespace

Result<Value> Interp::eval(const Expr& e) {
  line_ = e.line;
  INFER_TRY(budget_.charge(1));
  if (e.kind == ExprKind::kConst) return e.value;
  if (e.kind == ExprKind::kName) return eval_name(e);
  auto entered = enter();
  Result<Value> v = entered.ok() ? eval_inner(e) : Result<Value>(entered.error());
  --depth_;
  return v;
}

Result<Value> Interp::eval_inner(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kList:
      return eval_items(e, ListKind::kList);
    case ExprKind::kTuple:
      return eval_items(e, ListKind::kTuple);
    case ExprKind::kDict:
      return eval_dict(e);
    case ExprKind::kConcat:
      return eval_concat(e);
    case ExprKind::kAnd:
      return eval_logic(e, false);
    case ExprKind::kOr:
      return eval_logic(e, true);
    case ExprKind::kNot: {
      INFER_ASSIGN(const Value v, eval(*e.args[0]));
      return Value(!is_true(v));
    }
    case ExprKind::kNegate:
    case ExprKind::kPlus: {
      INFER_ASSIGN(const Value v, eval(*e.args[0]));
      return negate(v, e.kind == ExprKind::kNegate);
    }
    case ExprKind::kBinary:
      return eval_binary(e);
    case ExprKind::kCompare:
      return eval_compare(e);
    case ExprKind::kCond:
      return eval_cond(e);
    case ExprKind::kAttr:
      return eval_attr(e);
    case ExprKind::kItem:
      return eval_item(e);
    case ExprKind::kSlice:
      return eval_slice(e);
    case ExprKind::kCall:
      return eval_call(e);
    case ExprKind::kFilter:
      return eval_filter(e);
    case ExprKind::kTest:
      return eval_test(e);
    default:
      return Value();
  }
}

Result<Value> Interp::eval_name(const Expr& e) {
  size_t n = 0;  // names looked at
  for (const Frame* f = frame_; f != nullptr; f = f->parent) {
    for (const auto& [name, value] : f->vars) {
      ++n;
      if (name != e.name) continue;
      INFER_TRY(budget_.charge(walk_cost(n)));
      return value;
    }
    ++n;
  }
  INFER_TRY(budget_.charge(walk_cost(n)));
  for (const auto& [name, value] : vars_) {
    if (name == e.name) return value;
  }
  for (Function* f : global_functions()) {
    if (f->name == e.name) return Value(unowned(f));
  }
  return Value::undefined(fmt::format("'{}' is undefined", e.name));
}

Result<Value> Interp::eval_items(const Expr& e, ListKind kind) {
  std::vector<Value> items;
  items.reserve(e.args.size());
  for (const Expr* a : e.args) {
    INFER_ASSIGN(Value v, eval(*a));
    items.push_back(std::move(v));
  }
  return make_list(budget_, std::move(items), kind);
}

Result<Value> Interp::eval_dict(const Expr& e) {
  DictBuilder dict(budget_);
  for (size_t i = 0; i < e.args.size(); i += 2) {
    INFER_ASSIGN(const Value key, eval(*e.args[i]));
    INFER_ASSIGN(Value value, eval(*e.args[i + 1]));
    INFER_TRY(dict.set(key, std::move(value)));
  }
  return dict.finish();
}

Result<Value> Interp::eval_concat(const Expr& e) {
  TextBuilder out(budget_);
  for (const Expr* a : e.args) {
    INFER_ASSIGN(const Value v, eval(*a));
    INFER_ASSIGN(const TextPtr text, to_text(budget_, v));
    out.append(*text);
  }
  INFER_ASSIGN(TextPtr text, out.finish());
  return Value(std::move(text));
}

Result<Value> Interp::eval_logic(const Expr& e, bool stop_at) {
  Value v;
  for (const Expr* a : e.args) {
    INFER_ASSIGN(v, eval(*a));
    if (is_true(v) == stop_at) break;
  }
  return v;
}

Result<Value> Interp::eval_binary(const Expr& e) {
  INFER_ASSIGN(const Value a, eval(*e.args[0]));
  INFER_ASSIGN(const Value b, eval(*e.args[1]));
  line_ = e.line;
  return arithmetic(budget_, e.op, a, b);
}

Result<Value> Interp::eval_compare(const Expr& e) {
  INFER_ASSIGN(Value a, eval(*e.args[0]));
  for (size_t i = 0; i < e.ops.size(); ++i) {
    INFER_ASSIGN(Value b, eval(*e.args[i + 1]));
    INFER_ASSIGN(const bool holds, compare(budget_, e.ops[i], a, b));
    if (!holds) return Value(false);
    a = std::move(b);
  }
  return Value(true);
}

Result<Value> Interp::eval_cond(const Expr& e) {
  INFER_ASSIGN(const Value test, eval(*e.args[1]));
  if (is_true(test)) return eval(*e.args[0]);
  if (e.args[2] != nullptr) return eval(*e.args[2]);
  return Value::undefined("the inline if-expression was false and has no else");
}

Result<Value> Interp::eval_attr(const Expr& e) {
  INFER_ASSIGN(const Value v, eval(*e.args[0]));
  line_ = e.line;
  return get_attribute(*this, v, e.name);
}

Result<Value> Interp::eval_item(const Expr& e) {
  INFER_ASSIGN(const Value v, eval(*e.args[0]));
  INFER_ASSIGN(const Value key, eval(*e.args[1]));
  line_ = e.line;
  return get_item(*this, v, key);
}

Result<Value> Interp::eval_slice(const Expr& e) {
  INFER_ASSIGN(const Value v, eval(*e.args[0]));
  Value parts[3] = {Value::none(), Value::none(), Value::none()};
  for (size_t i = 0; i < 3; ++i) {
    if (e.args[i + 1] == nullptr) continue;
    INFER_ASSIGN(parts[i], eval(*e.args[i + 1]));
  }
  return slice(budget_, v, &parts[0], &parts[1], &parts[2]);
}

Result<Args> Interp::eval_args(const CallArgs& call) {
  Args out;
  out.pos.reserve(call.pos.size());
  for (const Expr* a : call.pos) {
    INFER_ASSIGN(Value v, eval(*a));
    out.pos.push_back(std::move(v));
  }
  for (const auto& [name, a] : call.named) {
    INFER_ASSIGN(Value v, eval(*a));
    out.named.emplace_back(name, std::move(v));
  }
  if (call.star != nullptr) {
    INFER_ASSIGN(const Value v, eval(*call.star));
    INFER_ASSIGN(const ListPtr items, items_of(budget_, v));
    INFER_TRY(budget_.charge(static_cast<int64_t>(items->items.size())));
    out.pos.insert(out.pos.end(), items->items.begin(), items->items.end());
  }
  if (call.double_star != nullptr) {
    constexpr size_t kMaxNamed = 1000;
    INFER_ASSIGN(const Value v, eval(*call.double_star));
    if (!v.is(Kind::kDict) || v.as_dict()->size() > kMaxNamed)
      return make_error(ErrorCode::kInvalidArgument, "** needs a mapping of at most {} names",
                        kMaxNamed);
    for (const auto& [key, value] : v.as_dict()->entries()) {
      if (!key.is_text())
        return make_error(ErrorCode::kInvalidArgument, "** needs names, not {}", type_name(key));
      INFER_TRY(budget_.charge_text(key.bytes().size()));
      out.named.emplace_back(key.bytes(), value);
    }
  }
  return out;
}

Result<Value> Interp::eval_call(const Expr& e) {
  INFER_ASSIGN(const Value callee, eval(*e.args[0]));
  if (callee.is_undefined()) {
    line_ = e.line;
    return undefined_error(callee);
  }
  INFER_ASSIGN(const Args args, eval_args(e.call));
  line_ = e.line;
  return call(callee, args);
}

Result<Value> Interp::call(const Value& callee, const Args& args) {
  INFER_TRY(budget_.charge(2));
  if (callee.is_undefined()) return undefined_error(callee);
  if (callee.is(Kind::kObject)) {
    const Object& object = *callee.as_object();
    if (object.kind == Object::Kind::kMacro)
      return call_macro(static_cast<const Macro&>(object), args);
    if (object.kind == Object::Kind::kFunction)
      return static_cast<const Function&>(object).fn(*this, args);
    if (object.kind == Object::Kind::kMethod) {
      const auto& method = static_cast<const Method&>(object);
      if (method.def->fn_args != nullptr) return method.def->fn_args(*this, method.self, args);
      INFER_ASSIGN(const Bound bound, bind(method.def->name, method.def->params, args));
      return method.def->fn(*this, method.self, bound);
    }
  }
  return make_error(ErrorCode::kInvalidArgument, "'{}' object is not callable", type_name(callee));
}

Result<Value> Interp::apply_filter(const FilterDef* def, std::string_view name, const Value& in,
                                   const Args& args) {
  if (def == nullptr) return make_error(ErrorCode::kUnsupported, "no filter named '{}'", name);
  INFER_TRY(budget_.charge(1));
  if (def->fn_args != nullptr) return def->fn_args(*this, in, args);
  INFER_ASSIGN(const Bound bound, bind(def->name, def->params, args));
  return def->fn(*this, in, bound);
}

Result<bool> Interp::apply_test(const TestDef* def, std::string_view name, const Value& in,
                                const Args& args) {
  if (def == nullptr) return make_error(ErrorCode::kUnsupported, "no test named '{}'", name);
  INFER_TRY(budget_.charge(1));
  INFER_ASSIGN(const Bound bound, bind(def->name, def->params, args));
  return def->fn(*this, in, bound);
}

Result<Value> Interp::eval_filter(const Expr& e) {
  INFER_ASSIGN(const Value in, eval(*e.args[0]));
  INFER_ASSIGN(const Args args, eval_args(e.call));
  line_ = e.line;
  return apply_filter(e.filter, e.name, in, args);
}

Result<Value> Interp::eval_test(const Expr& e) {
  INFER_ASSIGN(const Value in, eval(*e.args[0]));
  INFER_ASSIGN(const Args args, eval_args(e.call));
  line_ = e.line;
  INFER_ASSIGN(const bool holds, apply_test(e.test, e.name, in, args));
  return Value(holds);
}

}  // namespace infer::text::jinja
