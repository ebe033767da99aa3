#pragma once

#include <deque>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/jinja/ast.h"
#include "core/text/jinja/objects.h"

namespace infer::text::jinja {

/// Walks a tree once. Every step is paid for from the budget, every recursion is counted.
class Interp {
 public:
  using Vars = std::vector<std::pair<std::string, Value>>;

  /// All must outlive the interpreter, and it must outlive its values.
  Interp(const Tree& tree, const Vars& vars, int64_t now_unix, Budget& budget);
  Interp(const Interp&) = delete;
  Interp& operator=(const Interp&) = delete;

  /// Errors: "line N: ...".
  Result<Text> run();

  // For built-ins.
  Budget& budget() { return budget_; }
  int64_t now_unix() const { return now_unix_; }
  Result<Value> call(const Value& callee, const Args& args);
  /// `def` may be nullptr: an error that says `name`.
  Result<Value> apply_filter(const FilterDef* def, std::string_view name, const Value& in,
                             const Args& args);
  Result<bool> apply_test(const TestDef* def, std::string_view name, const Value& in,
                          const Args& args);
  Namespace* new_namespace();

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Scope;

  // statements (interp.cpp)
  Result<Flow> exec(const Body& body);
  Result<Flow> exec(const Stmt& s);
  Result<Flow> exec_if(const Stmt& s);
  Result<Flow> exec_for(const Stmt& s);
  Result<ListPtr> loop_items(const Stmt& s);
  Result<Flow> exec_set(const Stmt& s);
  Result<Flow> exec_set_block(const Stmt& s);
  Result<Flow> exec_call_block(const Stmt& s);
  Result<Flow> exec_filter_block(const Stmt& s);
  Result<Flow> exec_with(const Stmt& s);
  Result<Flow> exec_output(const Stmt& s);
  Result<Value> captured(const Body& body);
  Result<Value> filtered(const Expr& e, Value in);
  Result<void> assign(const Target& target, const Value& v);
  Result<void> assign_attribute(const Target& target, const Value& v);
  Value define_macro(const MacroDef& def);
  Result<Value> call_macro(const Macro& macro, const Args& args);
  Result<void> bind_macro(const Macro& macro, const Args& args);
  void set_var(std::string_view name, Value v);
  Result<void> enter();

  // expressions (eval.cpp)
  Result<Value> eval(const Expr& e);
  Result<Value> eval_inner(const Expr& e);
  Result<Value> eval_name(const Expr& e);
  Result<Value> eval_items(const Expr& e, ListKind kind);
  Result<Value> eval_dict(const Expr& e);
  Result<Value> eval_concat(const Expr& e);
  Result<Value> eval_logic(const Expr& e, bool stop_at);
  Result<Value> eval_binary(const Expr& e);
  Result<Value> eval_compare(const Expr& e);
  Result<Value> eval_cond(const Expr& e);
  Result<Value> eval_attr(const Expr& e);
  Result<Value> eval_item(const Expr& e);
  Result<Value> eval_slice(const Expr& e);
  Result<Value> eval_call(const Expr& e);
  Result<Value> eval_filter(const Expr& e);
  Result<Value> eval_test(const Expr& e);
  Result<Args> eval_args(const CallArgs& call);

  const Tree& tree_;
  const Vars& vars_;
  const int64_t now_unix_;
  Budget& budget_;
  int depth_ = 0;
  int line_ = 1;  ///< of what is evaluated: the place of an error
  Frame root_;
  Frame* frame_ = &root_;
  TextBuilder* out_ = nullptr;
  // Owned here because they may refer to each other in circles.
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Frame>> kept_frames_;
};

}  // namespace infer::text::jinja
