#pragma once

#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "core/text/jinja/ast.h"
#include "core/text/jinja/budget.h"
#include "core/text/jinja/lexer.h"

namespace infer::text::jinja {

/// Jinja's grammar, without the statements that need other templates (extends, include, import,
/// block). Time is linear in the source; nesting is limited. Errors: kInvalidArgument or
/// kUnsupported, "line N: ...".
Result<std::unique_ptr<const Tree>> parse_template(std::string_view source, const Limits& limits);

/// Source: the grammar in Jinja's "Template Designer Documentation".
class Parser {
 public:
  Parser(std::vector<Token> tokens, const Limits& limits, Tree& tree)
      : tokens_(std::move(tokens)), limits_(limits), tree_(tree) {}
  /// The statements up to one whose name is in `ends` (the tag's name is not taken), or to the end
  /// of the template where `ends` is empty.
  Result<Body> body(std::initializer_list<std::string_view> ends);

 private:
  using ExprResult = Result<const Expr*>;
  using Names = std::initializer_list<std::string_view>;
  class Nested;

  // tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  void skip() { at_ += at_ + 1 < tokens_.size(); }
  bool is_op(std::string_view op) const;
  bool is_name(std::string_view name) const;
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  Result<void> expect_op(std::string_view op);
  Result<void> expect_block_end();
  Result<std::string> expect_name();
  Error fail(std::string_view message) const { return error_at(now().line, message); }
  Error unexpected(std::string_view wanted) const;
  Result<void> deeper();

  // statements
  Result<const Stmt*> statement();
  Result<void> statement_into(std::string_view name, Stmt& s);
  Result<void> if_statement(Stmt& s);
  Result<void> for_statement(Stmt& s);
  Result<void> set_statement(Stmt& s);
  Result<void> macro_statement(Stmt& s);
  Result<void> call_statement(Stmt& s);
  Result<void> filter_statement(Stmt& s);
  Result<void> with_statement(Stmt& s);
  Result<void> loop_control(Stmt& s, StmtKind kind);
  Result<Body> block(std::string_view end);
  Result<void> signature(MacroDef& macro);
  Result<void> macro_body(MacroDef& macro, std::string_view end);
  Result<Target> target(bool with_attributes, bool until_in);
  Result<Target> target_part(bool with_attributes);

  // expressions (parse_expr.cpp)
  ExprResult add(Expr e);
  ExprResult expression(bool with_cond = true);
  ExprResult tuple(bool with_cond, Names ends, bool parentheses);
  ExprResult cond();
  ExprResult chain_or();
  ExprResult chain_and();
  ExprResult negation();
  ExprResult compare();
  ExprResult sum();
  ExprResult concat();
  ExprResult product();
  ExprResult power();
  ExprResult unary(bool with_filter = true);
  ExprResult primary();
  ExprResult constant(Value v);
  ExprResult list();
  ExprResult dict();
  ExprResult postfix(const Expr* e);
  ExprResult filters_and_tests(const Expr* e);
  ExprResult subscript(const Expr* e);
  ExprResult attribute(const Expr* e);
  ExprResult call(const Expr* e);
  ExprResult filters(const Expr* e);
  ExprResult test(const Expr* e);
  Result<CallArgs> arguments();
  Result<std::string> dotted_name();
  bool test_has_argument() const;

  std::vector<Token> tokens_;
  const Limits& limits_;
  Tree& tree_;
  size_t at_ = 0;
  int depth_ = 0;
  int n_loops_ = 0;  ///< around this place, within the macro
  std::vector<MacroDef*> macros_;
};

/// Leaves one level of nesting at the end of a scope.
class Parser::Nested {
 public:
  explicit Nested(Parser& p) : p_(p) {}
  ~Nested() { --p_.depth_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Parser& p_;
};

}  // namespace infer::text::jinja
