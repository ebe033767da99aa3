// The expressions of the grammar, loosest first.

#include <algorithm>

#include <fmt/format.h>

#include "core/text/jinja/builtins.h"
#include "core/text/jinja/parser.h"

namespace infer::text::jinja {
namespace {

constexpr int kMaxHeight = 200;  // of one expression: long chains of + or | count too

void raise(int& height, const Expr* e) {
  if (e != nullptr) height = std::max(height, e->height + 1);
}

}  // namespace

Parser::ExprResult Parser::add(Expr e) {
  for (const Expr* a : e.args) raise(e.height, a);
  for (const Expr* a : e.call.pos) raise(e.height, a);
  for (const auto& [name, a] : e.call.named) raise(e.height, a);
  raise(e.height, e.call.star);
  raise(e.height, e.call.double_star);
  if (e.height > kMaxHeight)
    return error_at(e.line, fmt::format("an expression deeper than {}", kMaxHeight));
  tree_.exprs.push_back(std::move(e));
  return &tree_.exprs.back();
}

Parser::ExprResult Parser::expression(bool with_cond) {
  const Nested nested(*this);
  INFER_TRY(deeper());
  return with_cond ? cond() : chain_or();
}

Parser::ExprResult Parser::tuple(bool with_cond, Names ends, bool parentheses) {
  Expr out{.kind = ExprKind::kTuple, .line = now().line};
  bool is_tuple = false;
  const auto at_end = [&] {
    return now().type == TokenType::kVarEnd || now().type == TokenType::kBlockEnd || is_op(")") ||
           std::any_of(ends.begin(), ends.end(), [&](std::string_view e) { return is_name(e); });
  };
  while (!at_end()) {
    INFER_ASSIGN(const Expr* e, expression(with_cond));
    out.args.push_back(e);
    if (!take_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!out.args.empty()) return out.args[0];
    if (!parentheses) return unexpected("an expression");
  }
  return add(std::move(out));
}

Parser::ExprResult Parser::cond() {
  INFER_ASSIGN(const Expr* value, chain_or());
  while (is_name("if")) {
    Expr e{.kind = ExprKind::kCond, .line = now().line};
    skip();
    INFER_ASSIGN(const Expr* test, chain_or());
    const Expr* other = nullptr;
    if (take_name("else")) {
      INFER_ASSIGN(other, expression());
    }
    e.args = {value, test, other};
    INFER_ASSIGN(value, add(std::move(e)));
  }
  return value;
}

Parser::ExprResult Parser::chain_or() {
  Expr e{.kind = ExprKind::kOr, .line = now().line};
  do {
    INFER_ASSIGN(const Expr* part, chain_and());
    e.args.push_back(part);
  } while (take_name("or"));
  if (e.args.size() == 1) return e.args[0];
  return add(std::move(e));
}

Parser::ExprResult Parser::chain_and() {
  Expr e{.kind = ExprKind::kAnd, .line = now().line};
  do {
    INFER_ASSIGN(const Expr* part, negation());
    e.args.push_back(part);
  } while (take_name("and"));
  if (e.args.size() == 1) return e.args[0];
  return add(std::move(e));
}

Parser::ExprResult Parser::negation() {
  Expr e{.kind = ExprKind::kNot, .line = now().line};
  if (!take_name("not")) return compare();
  const Nested nested(*this);
  INFER_TRY(deeper());
  INFER_ASSIGN(const Expr* inner, negation());
  e.args = {inner};
  return add(std::move(e));
}

Parser::ExprResult Parser::compare() {
  constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEq}, {"!=", Op::kNe},
                                                      {"<", Op::kLt},  {"<=", Op::kLe},
                                                      {">", Op::kGt},  {">=", Op::kGe}};
  Expr e{.kind = ExprKind::kCompare, .line = now().line};
  for (;;) {
    INFER_ASSIGN(const Expr* part, sum());
    e.args.push_back(part);
    const auto op = std::find_if(std::begin(kOps), std::end(kOps),
                                 [&](const auto& o) { return is_op(o.first); });
    if (op != std::end(kOps)) {
      e.ops.push_back(op->second);
    } else if (is_name("in")) {
      e.ops.push_back(Op::kIn);
    } else if (is_name("not") && next().type == TokenType::kName && next().text == "in") {
      e.ops.push_back(Op::kNotIn);
      skip();
    } else {
      break;
    }
    skip();
  }
  if (e.args.size() == 1) return e.args[0];
  return add(std::move(e));
}

Parser::ExprResult Parser::sum() {
  INFER_ASSIGN(const Expr* left, concat());
  while (is_op("+") || is_op("-")) {
    Expr e{.kind = ExprKind::kBinary, .op = is_op("+") ? Op::kAdd : Op::kSub, .line = now().line};
    skip();
    INFER_ASSIGN(const Expr* right, concat());
    e.args = {left, right};
    INFER_ASSIGN(left, add(std::move(e)));
  }
  return left;
}

Parser::ExprResult Parser::concat() {
  Expr e{.kind = ExprKind::kConcat, .line = now().line};
  do {
    INFER_ASSIGN(const Expr* part, product());
    e.args.push_back(part);
  } while (take_op("~"));
  if (e.args.size() == 1) return e.args[0];
  return add(std::move(e));
}

Parser::ExprResult Parser::product() {
  constexpr std::pair<std::string_view, Op> kOps[] = {
      {"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}};
  INFER_ASSIGN(const Expr* left, power());
  for (;;) {
    const auto op = std::find_if(std::begin(kOps), std::end(kOps),
                                 [&](const auto& o) { return is_op(o.first); });
    if (op == std::end(kOps)) return left;
    Expr e{.kind = ExprKind::kBinary, .op = op->second, .line = now().line};
    skip();
    INFER_ASSIGN(const Expr* right, power());
    e.args = {left, right};
    INFER_ASSIGN(left, add(std::move(e)));
  }
}

Parser::ExprResult Parser::power() {
  INFER_ASSIGN(const Expr* left, unary());
  while (is_op("**")) {
    Expr e{.kind = ExprKind::kBinary, .op = Op::kPow, .line = now().line};
    skip();
    INFER_ASSIGN(const Expr* right, unary());
    e.args = {left, right};
    INFER_ASSIGN(left, add(std::move(e)));
  }
  return left;
}

Parser::ExprResult Parser::unary(bool with_filter) {
  const Nested nested(*this);
  INFER_TRY(deeper());
  const Expr* e = nullptr;
  if (is_op("-") || is_op("+")) {
    Expr sign{.kind = is_op("-") ? ExprKind::kNegate : ExprKind::kPlus, .line = now().line};
    skip();
    INFER_ASSIGN(const Expr* inner, unary(false));
    sign.args = {inner};
    INFER_ASSIGN(e, add(std::move(sign)));
  } else {
    INFER_ASSIGN(e, primary());
  }
  INFER_ASSIGN(e, postfix(e));
  return with_filter ? filters_and_tests(e) : ExprResult(e);
}

Parser::ExprResult Parser::constant(Value v) {
  Expr e{.kind = ExprKind::kConst, .line = now().line};
  e.value = std::move(v);
  skip();
  return add(std::move(e));
}

Parser::ExprResult Parser::primary() {
  const Token& token = now();
  switch (token.type) {
    case TokenType::kInt:
      return constant(Value(token.integer));
    case TokenType::kFloat:
      return constant(Value(token.number));
    case TokenType::kString: {
      std::string text;
      while (next().type == TokenType::kString) {
        text += now().text;
        skip();
      }
      return constant(Value::text(text + now().text));
    }
    case TokenType::kName: {
      const std::string& name = token.text;
      if (name == "true" || name == "True") return constant(Value(true));
      if (name == "false" || name == "False") return constant(Value(false));
      if (name == "none" || name == "None") return constant(Value::none());
      for (MacroDef* m : macros_) {
        m->wants_varargs = m->wants_varargs || name == "varargs";
        m->wants_kwargs = m->wants_kwargs || name == "kwargs";
        m->wants_caller = m->wants_caller || name == "caller";
      }
      Expr e{.kind = ExprKind::kName, .line = token.line, .name = name};
      skip();
      return add(std::move(e));
    }
    default:
      break;
  }
  if (is_op("[")) return list();
  if (is_op("{")) return dict();
  if (!take_op("(")) return unexpected("an expression");
  INFER_ASSIGN(const Expr* inner, tuple(true, {}, true));
  INFER_TRY(expect_op(")"));
  return inner;
}

Parser::ExprResult Parser::list() {
  Expr e{.kind = ExprKind::kList, .line = now().line};
  skip();
  while (!is_op("]")) {
    INFER_ASSIGN(const Expr* item, expression());
    e.args.push_back(item);
    if (!take_op(",")) break;
  }
  INFER_TRY(expect_op("]"));
  return add(std::move(e));
}

Parser::ExprResult Parser::dict() {
  Expr e{.kind = ExprKind::kDict, .line = now().line};
  skip();
  while (!is_op("}")) {
    INFER_ASSIGN(const Expr* key, expression());
    INFER_TRY(expect_op(":"));
    INFER_ASSIGN(const Expr* value, expression());
    e.args.push_back(key);
    e.args.push_back(value);
    if (!take_op(",")) break;
  }
  INFER_TRY(expect_op("}"));
  return add(std::move(e));
}

Parser::ExprResult Parser::postfix(const Expr* e) {
  for (;;) {
    if (is_op(".")) {
      INFER_ASSIGN(e, attribute(e));
    } else if (is_op("[")) {
      INFER_ASSIGN(e, subscript(e));
    } else if (is_op("(")) {
      INFER_ASSIGN(e, call(e));
    } else {
      return e;
    }
  }
}

Parser::ExprResult Parser::filters_and_tests(const Expr* e) {
  for (;;) {
    if (is_op("|")) {
      INFER_ASSIGN(e, filters(e));
    } else if (is_name("is")) {
      INFER_ASSIGN(e, test(e));
    } else if (is_op("(")) {
      INFER_ASSIGN(e, call(e));
    } else {
      return e;
    }
  }
}

Parser::ExprResult Parser::attribute(const Expr* e) {
  Expr out{.kind = ExprKind::kAttr, .line = now().line};
  skip();
  out.args = {e};
  if (now().type == TokenType::kInt) {
    out.kind = ExprKind::kItem;
    INFER_ASSIGN(const Expr* index, constant(Value(now().integer)));
    out.args.push_back(index);
    return add(std::move(out));
  }
  INFER_ASSIGN(out.name, expect_name());
  return add(std::move(out));
}

Parser::ExprResult Parser::subscript(const Expr* e) {
  Expr out{.kind = ExprKind::kItem, .line = now().line};
  skip();
  out.args = {e, nullptr, nullptr, nullptr};
  const auto part_ends = [&] { return is_op(":") || is_op("]"); };
  for (size_t i = 1; i < 4; ++i) {
    if (!part_ends()) {
      INFER_ASSIGN(out.args[i], expression());
    }
    if (i == 3 || !take_op(":")) break;
    out.kind = ExprKind::kSlice;
  }
  if (out.kind == ExprKind::kItem) {
    if (out.args[1] == nullptr) return unexpected("an index");
    if (is_op(",")) return fail("an index of several parts is not supported");
    out.args.resize(2);
  }
  INFER_TRY(expect_op("]"));
  return add(std::move(out));
}

Result<CallArgs> Parser::arguments() {
  CallArgs out;
  INFER_TRY(expect_op("("));
  while (!is_op(")")) {
    const bool stars = out.star != nullptr || out.double_star != nullptr;
    if (is_op("*") || is_op("**")) {
      const Expr*& to = is_op("*") ? out.star : out.double_star;
      if (to != nullptr || out.double_star != nullptr) return unexpected("an argument");
      skip();
      INFER_ASSIGN(to, expression());
    } else if (now().type == TokenType::kName && next().type == TokenType::kOperator &&
               next().text == "=") {
      if (out.double_star != nullptr) return unexpected("')'");
      std::string name = now().text;
      skip();
      skip();
      for (const auto& [other, value] : out.named) {
        if (other == name) return fail(fmt::format("argument '{}' given twice", name));
      }
      INFER_ASSIGN(const Expr* value, expression());
      out.named.emplace_back(std::move(name), value);
      if (out.named.size() > 100) return fail("more than 100 named arguments");
    } else {
      if (stars || !out.named.empty()) return fail("a positional argument behind a named one");
      INFER_ASSIGN(const Expr* value, expression());
      out.pos.push_back(value);
    }
    if (!take_op(",")) break;
  }
  INFER_TRY(expect_op(")"));
  return out;
}

Parser::ExprResult Parser::call(const Expr* e) {
  Expr out{.kind = ExprKind::kCall, .line = now().line};
  out.args = {e};
  INFER_ASSIGN(out.call, arguments());
  return add(std::move(out));
}

Result<std::string> Parser::dotted_name() {
  INFER_ASSIGN(std::string name, expect_name());
  while (take_op(".")) {
    INFER_ASSIGN(const std::string part, expect_name());
    name += "." + part;
  }
  return name;
}

Parser::ExprResult Parser::filters(const Expr* e) {
  while (is_op("|")) {
    Expr out{.kind = ExprKind::kFilter, .line = now().line};
    skip();
    out.args = {e};
    INFER_ASSIGN(out.name, dotted_name());
    if (is_op("(")) {
      INFER_ASSIGN(out.call, arguments());
    }
    out.filter = find_filter(out.name);
    INFER_ASSIGN(e, add(std::move(out)));
  }
  return e;
}

bool Parser::test_has_argument() const {
  switch (now().type) {
    case TokenType::kName:
      return !is_name("else") && !is_name("or") && !is_name("and");
    case TokenType::kString:
    case TokenType::kInt:
    case TokenType::kFloat:
      return true;
    default:
      return is_op("[") || is_op("{");
  }
}

Parser::ExprResult Parser::test(const Expr* e) {
  Expr out{.kind = ExprKind::kTest, .line = now().line};
  skip();
  const bool negated = take_name("not");
  out.args = {e};
  INFER_ASSIGN(out.name, dotted_name());
  if (is_op("(")) {
    INFER_ASSIGN(out.call, arguments());
  } else if (test_has_argument()) {
    if (is_name("is")) return fail("tests cannot be chained with 'is'");
    INFER_ASSIGN(const Expr* arg, primary());
    INFER_ASSIGN(arg, postfix(arg));
    out.call.pos.push_back(arg);
  }
  out.test = find_test(out.name);
  const int line = out.line;
  INFER_ASSIGN(const Expr* node, add(std::move(out)));
  if (!negated) return node;
  Expr no{.kind = ExprKind::kNot, .line = line};
  no.args = {node};
  return add(std::move(no));
}

}  // namespace infer::text::jinja
