// Statements: what a template does in order.

#include "core/text/jinja/interp.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/text/jinja/builtins.h"
#include "core/text/jinja/lexer.h"

namespace infer::text::jinja {

/// One frame more until the end of the C++ scope. A frame that a macro refers to stays until the
/// interpreter goes.
class Interp::Scope {
 public:
  Scope(Interp& in, Frame* parent) : in_(in), before_(in.frame_) {
    frame_ = std::make_unique<Frame>();
    frame_->parent = parent;
    in_.frame_ = frame_.get();
  }
  explicit Scope(Interp& in) : Scope(in, in.frame_) {}
  ~Scope() {
    in_.frame_ = before_;
    keep();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  /// An empty frame again, for the next turn of a loop.
  void renew() {
    Frame* parent = frame_->parent;
    keep();
    if (!frame_) frame_ = std::make_unique<Frame>();
    frame_->vars.clear();
    frame_->parent = parent;
    in_.frame_ = frame_.get();
  }

 private:
  void keep() {
    if (frame_->captured) in_.kept_frames_.push_back(std::move(frame_));
  }

  Interp& in_;
  Frame* before_;
  std::unique_ptr<Frame> frame_;
};

Interp::Interp(const Tree& tree, const Vars& vars, int64_t now_unix, Budget& budget)
    : tree_(tree), vars_(vars), now_unix_(now_unix), budget_(budget) {}

Result<Text> Interp::run() {
  TextBuilder out(budget_);
  out_ = &out;
  auto flow = exec(tree_.body);
  if (!flow.ok()) return Error{flow.error().code, error_at(line_, flow.error().message).message};
  auto text = out.take();
  if (!text.ok()) return Error{text.error().code, error_at(line_, text.error().message).message};
  return text;
}

Result<void> Interp::enter() {
  if (++depth_ <= budget_.limits().max_eval_depth) return {};
  return make_error(ErrorCode::kOutOfMemory, "nested deeper than {} (a macro that calls itself?)",
                    budget_.limits().max_eval_depth);
}

Result<Interp::Flow> Interp::exec(const Body& body) {
  auto entered = enter();
  Result<Flow> flow = Flow::kNext;
  if (!entered.ok()) flow = entered.error();
  for (size_t i = 0; i < body.size() && flow.ok() && *flow == Flow::kNext; ++i)
    flow = exec(*body[i]);
  --depth_;
  return flow;
}

Result<Interp::Flow> Interp::exec(const Stmt& s) {
  line_ = s.line;
  INFER_TRY(budget_.charge(1));
  switch (s.kind) {
    case StmtKind::kText:
      out_->append(*s.text);
      INFER_TRY(out_->state());
      return Flow::kNext;
    case StmtKind::kOutput:
      return exec_output(s);
    case StmtKind::kIf:
      return exec_if(s);
    case StmtKind::kFor:
      return exec_for(s);
    case StmtKind::kSet:
      return exec_set(s);
    case StmtKind::kSetBlock:
      return exec_set_block(s);
    case StmtKind::kMacro:
      set_var(s.macro.name, define_macro(s.macro));
      return Flow::kNext;
    case StmtKind::kCallBlock:
      return exec_call_block(s);
    case StmtKind::kFilterBlock:
      return exec_filter_block(s);
    case StmtKind::kWith:
      return exec_with(s);
    case StmtKind::kScope: {
      const Scope scope(*this);
      return exec(s.body);
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<Interp::Flow> Interp::exec_output(const Stmt& s) {
  INFER_ASSIGN(const Value v, eval(*s.expr));
  INFER_ASSIGN(const TextPtr text, to_text(budget_, v));
  out_->append(*text);
  INFER_TRY(out_->state());
  return Flow::kNext;
}

Result<Interp::Flow> Interp::exec_if(const Stmt& s) {
  for (const auto& [test, then] : s.branches) {
    INFER_ASSIGN(const Value v, eval(*test));
    if (is_true(v)) return exec(then);
  }
  return exec(s.other);
}

/// What a loop goes over: its filter is applied before the first turn.
Result<ListPtr> Interp::loop_items(const Stmt& s) {
  INFER_ASSIGN(const Value over, eval(*s.expr));
  line_ = s.line;
  INFER_ASSIGN(ListPtr items, items_of(budget_, over));
  if (s.test == nullptr) return items;
  std::vector<Value> kept;
  Scope scope(*this);
  for (const Value& item : items->items) {
    INFER_TRY(assign(s.target, item));
    INFER_ASSIGN(const Value keep, eval(*s.test));
    if (is_true(keep)) kept.push_back(item);
    scope.renew();
  }
  INFER_ASSIGN(const Value list, make_list(budget_, std::move(kept)));
  return list.as_list();
}

Result<Interp::Flow> Interp::exec_for(const Stmt& s) {
  INFER_ASSIGN(const ListPtr items, loop_items(s));
  if (items->items.empty()) {
    const Scope scope(*this);
    return exec(s.other);
  }
  INFER_TRY(budget_.charge(4));
  objects_.push_back(std::make_unique<Loop>());
  auto& loop = static_cast<Loop&>(*objects_.back());
  loop.items = items;
  Scope scope(*this);
  Result<Flow> flow = Flow::kNext;
  for (size_t i = 0; i < items->items.size(); ++i) {
    loop.index0 = i;
    if (i > 0) scope.renew();
    line_ = s.line;
    INFER_TRY(budget_.charge(1));
    set_var("loop", Value(unowned(&loop)));
    INFER_TRY(assign(s.target, items->items[i]));
    flow = exec(s.body);
    if (!flow.ok() || *flow == Flow::kBreak) break;
  }
  loop.items = nullptr;
  if (!flow.ok()) return flow;
  return Flow::kNext;
}

Result<Interp::Flow> Interp::exec_set(const Stmt& s) {
  INFER_ASSIGN(const Value v, eval(*s.expr));
  INFER_TRY(assign(s.target, v));
  return Flow::kNext;
}

/// The output of `body`, in a scope of its own.
Result<Value> Interp::captured(const Body& body) {
  TextBuilder inner(budget_);
  TextBuilder* const before = std::exchange(out_, &inner);
  Result<Flow> flow = Flow::kNext;
  {
    const Scope scope(*this);
    flow = exec(body);
  }
  out_ = before;
  if (!flow.ok()) return flow.error();
  INFER_ASSIGN(TextPtr text, inner.finish());
  return Value(std::move(text));
}

/// `in` through a chain of filters whose innermost has no operand.
Result<Value> Interp::filtered(const Expr& e, Value in) {
  if (e.args[0] != nullptr) {
    INFER_ASSIGN(in, filtered(*e.args[0], std::move(in)));
  }
  line_ = e.line;
  INFER_ASSIGN(const Args args, eval_args(e.call));
  return apply_filter(e.filter, e.name, in, args);
}

Result<Interp::Flow> Interp::exec_set_block(const Stmt& s) {
  INFER_ASSIGN(Value v, captured(s.body));
  if (s.expr != nullptr) {
    INFER_ASSIGN(v, filtered(*s.expr, std::move(v)));
  }
  INFER_TRY(assign(s.target, v));
  return Flow::kNext;
}

Result<Interp::Flow> Interp::exec_filter_block(const Stmt& s) {
  INFER_ASSIGN(Value v, captured(s.body));
  INFER_ASSIGN(v, filtered(*s.expr, std::move(v)));
  INFER_ASSIGN(const TextPtr text, to_text(budget_, v));
  out_->append(*text);
  INFER_TRY(out_->state());
  return Flow::kNext;
}

Result<Interp::Flow> Interp::exec_with(const Stmt& s) {
  std::vector<Value> values;
  for (const auto& [target, value] : s.assignments) {
    INFER_ASSIGN(Value v, eval(*value));
    values.push_back(std::move(v));
  }
  const Scope scope(*this);
  for (size_t i = 0; i < values.size(); ++i) INFER_TRY(assign(s.assignments[i].first, values[i]));
  return exec(s.body);
}

Result<Interp::Flow> Interp::exec_call_block(const Stmt& s) {
  const Expr& e = *s.expr;
  INFER_ASSIGN(const Value callee, eval(*e.args[0]));
  INFER_ASSIGN(Args args, eval_args(e.call));
  args.named.emplace_back("caller", define_macro(s.macro));
  INFER_ASSIGN(const Value v, call(callee, args));
  INFER_ASSIGN(const TextPtr text, to_text(budget_, v));
  out_->append(*text);
  INFER_TRY(out_->state());
  return Flow::kNext;
}

void Interp::set_var(std::string_view name, Value v) {
  for (auto& [known, value] : frame_->vars) {
    if (known == name) {
      value = std::move(v);
      return;
    }
  }
  frame_->vars.emplace_back(name, std::move(v));
}

Result<void> Interp::assign(const Target& target, const Value& v) {
  INFER_TRY(budget_.charge(1 + static_cast<int64_t>(frame_->vars.size() / 4)));
  if (!target.is_tuple) {
    if (!target.attribute.empty()) return assign_attribute(target, v);
    set_var(target.name, v);
    return {};
  }
  INFER_ASSIGN(const ListPtr items, items_of(budget_, v));
  if (items->items.size() != target.parts.size()) {
    return make_error(ErrorCode::kInvalidArgument, "{} values for {} names", items->items.size(),
                      target.parts.size());
  }
  for (size_t i = 0; i < target.parts.size(); ++i)
    INFER_TRY(assign(target.parts[i], items->items[i]));
  return {};
}

Result<void> Interp::assign_attribute(const Target& target, const Value& v) {
  Expr name;
  name.name = target.name;
  INFER_ASSIGN(const Value owner, eval_name(name));
  if (!owner.is(Value::Kind::kObject) || owner.as_object()->kind != Object::Kind::kNamespace) {
    return make_error(ErrorCode::kInvalidArgument,
                      "cannot assign an attribute of '{}': it is no namespace", target.name);
  }
  auto& ns = static_cast<Namespace&>(*owner.as_object());
  INFER_TRY(budget_.charge(static_cast<int64_t>(ns.attributes.size() / 4)));
  ns.set(target.attribute, v);
  return {};
}

Namespace* Interp::new_namespace() {
  objects_.push_back(std::make_unique<Namespace>());
  return static_cast<Namespace*>(objects_.back().get());
}

Value Interp::define_macro(const MacroDef& def) {
  for (Frame* f = frame_; f != nullptr && !f->captured; f = f->parent) f->captured = true;
  objects_.push_back(std::make_unique<Macro>(&def, frame_));
  return Value(unowned(objects_.back().get()));
}

/// Fills the frame of a call.
Result<void> Interp::bind_macro(const Macro& macro, const Args& args) {
  const MacroDef& def = *macro.def;
  const size_t n = def.params.size();
  std::vector<bool> given(n, false);
  for (size_t i = 0; i < std::min(n, args.pos.size()); ++i) {
    set_var(def.params[i], args.pos[i]);
    given[i] = true;
  }
  DictBuilder rest(budget_);
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(def.params.begin(), def.params.end(), name) - def.params.begin();
    if (static_cast<size_t>(at) < n) {
      if (given[at])
        return make_error(ErrorCode::kInvalidArgument, "macro '{}' got two values for '{}'",
                          def.name, name);
      given[at] = true;
      set_var(def.params[at], value);
    } else if (name == "caller") {
      if (!def.wants_caller)
        return make_error(ErrorCode::kInvalidArgument, "macro '{}' takes no caller", def.name);
      set_var("caller", value);
    } else if (def.wants_kwargs) {
      INFER_TRY(rest.set(Value::text(name), value));
    } else {
      return make_error(ErrorCode::kInvalidArgument, "macro '{}' takes no argument '{}'", def.name,
                        name);
    }
  }
  if (args.pos.size() > n && !def.wants_varargs)
    return make_error(ErrorCode::kInvalidArgument, "macro '{}' takes at most {} arguments",
                      def.name, n);
  if (def.wants_kwargs) {
    INFER_ASSIGN(Value kwargs, rest.finish());
    set_var("kwargs", std::move(kwargs));
  }
  if (def.wants_varargs) {
    std::vector<Value> more(args.pos.begin() + static_cast<ptrdiff_t>(std::min(n, args.pos.size())),
                            args.pos.end());
    INFER_ASSIGN(Value varargs, make_list(budget_, std::move(more), ListKind::kTuple));
    set_var("varargs", std::move(varargs));
  }
  for (size_t i = 0; i < n; ++i) {
    if (given[i]) continue;
    const size_t required = n - def.defaults.size();
    Value v = Value::undefined(fmt::format("parameter '{}' was not provided", def.params[i]));
    if (i >= required) {
      INFER_ASSIGN(v, eval(*def.defaults[i - required]));
    }
    set_var(def.params[i], std::move(v));
  }
  return {};
}

Result<Value> Interp::call_macro(const Macro& macro, const Args& args) {
  const auto n = static_cast<int64_t>(macro.def->params.size());
  INFER_TRY(budget_.charge(4 + n * (1 + (n + static_cast<int64_t>(args.named.size())) / 8)));
  const Scope scope(*this, macro.scope);
  INFER_TRY(bind_macro(macro, args));
  TextBuilder inner(budget_);
  TextBuilder* const before = std::exchange(out_, &inner);
  const auto flow = exec(macro.def->body);
  out_ = before;
  if (!flow.ok()) return flow.error();
  INFER_ASSIGN(TextPtr text, inner.finish());
  return Value(std::move(text));
}

}  // namespace infer::text::jinja
