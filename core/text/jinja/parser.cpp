#include "core/text/jinja/parser.h"

#include <algorithm>

#include <fmt/format.h>

namespace infer::text::jinja {

bool Parser::is_op(std::string_view op) const {
  return now().type == TokenType::kOperator && now().text == op;
}
bool Parser::is_name(std::string_view name) const {
  return now().type == TokenType::kName && now().text == name;
}
bool Parser::take_op(std::string_view op) {
  if (!is_op(op)) return false;
  skip();
  return true;
}
bool Parser::take_name(std::string_view name) {
  if (!is_name(name)) return false;
  skip();
  return true;
}
Result<void> Parser::expect_op(std::string_view op) {
  if (!take_op(op)) return unexpected(fmt::format("'{}'", op));
  return {};
}
Result<void> Parser::expect_block_end() {
  if (now().type != TokenType::kBlockEnd) return unexpected("the end of the block tag");
  skip();
  return {};
}
Result<std::string> Parser::expect_name() {
  if (now().type != TokenType::kName) return unexpected("a name");
  std::string name = now().text;
  skip();
  return name;
}

Error Parser::unexpected(std::string_view wanted) const {
  std::string got;
  switch (now().type) {
    case TokenType::kEnd:
      got = "the end of the template";
      break;
    case TokenType::kVarEnd:
      got = "'}}'";
      break;
    case TokenType::kBlockEnd:
      got = "'%}'";
      break;
    case TokenType::kString:
      got = "a string";
      break;
    default:
      got = fmt::format("'{}'", now().text);
  }
  return fail(fmt::format("expected {}, got {}", wanted, got));
}

Result<void> Parser::deeper() {
  if (++depth_ <= limits_.max_parse_depth) return {};
  return fail(fmt::format("nested deeper than {}", limits_.max_parse_depth));
}

Result<Body> Parser::body(std::initializer_list<std::string_view> ends) {
  const Nested nested(*this);
  INFER_TRY(deeper());
  Body out;
  for (;;) {
    const int line = now().line;
    switch (now().type) {
      case TokenType::kEnd:
        if (ends.size() == 0) return out;
        return fail(fmt::format("the template ends where '{}' was expected", *(ends.end() - 1)));
      case TokenType::kData:
        tree_.stmts.push_back(
            {.kind = StmtKind::kText, .line = line, .text = make_text(now().text)});
        skip();
        break;
      case TokenType::kVarBegin: {
        skip();
        INFER_ASSIGN(const Expr* e, tuple(true, {}, false));
        if (now().type != TokenType::kVarEnd) return unexpected("'}}'");
        skip();
        tree_.stmts.push_back({.kind = StmtKind::kOutput, .line = line, .expr = e});
        break;
      }
      default: {
        skip();
        if (now().type == TokenType::kName &&
            std::find(ends.begin(), ends.end(), now().text) != ends.end())
          return out;
        INFER_ASSIGN(const Stmt* s, statement());
        INFER_TRY(expect_block_end());
        out.push_back(s);
        continue;
      }
    }
    out.push_back(&tree_.stmts.back());
  }
}

Result<const Stmt*> Parser::statement() {
  Stmt s{.line = now().line};
  INFER_ASSIGN(const std::string name, expect_name());
  INFER_TRY(statement_into(name, s));
  tree_.stmts.push_back(std::move(s));
  return &tree_.stmts.back();
}

Result<void> Parser::statement_into(std::string_view name, Stmt& s) {
  if (name == "if") return if_statement(s);
  if (name == "for") return for_statement(s);
  if (name == "set") return set_statement(s);
  if (name == "macro") return macro_statement(s);
  if (name == "call") return call_statement(s);
  if (name == "filter") return filter_statement(s);
  if (name == "with") return with_statement(s);
  if (name == "break") return loop_control(s, StmtKind::kBreak);
  if (name == "continue") return loop_control(s, StmtKind::kContinue);
  if (name == "generation") {
    s.kind = StmtKind::kScope;
    INFER_ASSIGN(s.body, block("endgeneration"));
    return {};
  }
  constexpr std::string_view kOthers[] = {"extends", "include", "import",
                                          "from",    "block",   "autoescape"};
  if (std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers))
    return fail(fmt::format("'{}' is not supported in a chat template", name));
  return fail(fmt::format("unknown tag '{}'", name));
}

/// "%} ... {% end": the block of a statement, its end tag's name included.
Result<Body> Parser::block(std::string_view end) {
  INFER_TRY(expect_block_end());
  INFER_ASSIGN(Body out, body({end}));
  skip();
  return out;
}

Result<void> Parser::if_statement(Stmt& s) {
  s.kind = StmtKind::kIf;
  do {
    INFER_ASSIGN(const Expr* test, tuple(false, {}, false));
    INFER_TRY(expect_block_end());
    INFER_ASSIGN(Body then, body({"elif", "else", "endif"}));
    s.branches.emplace_back(test, std::move(then));
  } while (take_name("elif"));
  if (take_name("else")) {
    INFER_ASSIGN(s.other, block("endif"));
    return {};
  }
  skip();
  return {};
}

Result<void> Parser::for_statement(Stmt& s) {
  s.kind = StmtKind::kFor;
  INFER_ASSIGN(s.target, target(false, true));
  if (!take_name("in")) return unexpected("'in'");
  INFER_ASSIGN(s.expr, tuple(false, {"recursive"}, false));
  if (take_name("if")) {
    INFER_ASSIGN(s.test, expression());
  }
  if (is_name("recursive")) return fail("recursive loops are not supported");
  INFER_TRY(expect_block_end());
  ++n_loops_;
  auto inside = body({"else", "endfor"});
  --n_loops_;
  INFER_ASSIGN(s.body, std::move(inside));
  if (take_name("else")) {
    INFER_ASSIGN(s.other, block("endfor"));
    return {};
  }
  skip();
  return {};
}

Result<void> Parser::loop_control(Stmt& s, StmtKind kind) {
  s.kind = kind;
  if (n_loops_ == 0) return fail("'break' and 'continue' belong into a loop");
  return {};
}

Result<void> Parser::set_statement(Stmt& s) {
  INFER_ASSIGN(s.target, target(true, false));
  if (take_op("=")) {
    s.kind = StmtKind::kSet;
    INFER_ASSIGN(s.expr, tuple(true, {}, false));
    return {};
  }
  s.kind = StmtKind::kSetBlock;
  if (is_op("|")) {
    INFER_ASSIGN(s.expr, filters(nullptr));
  }
  INFER_ASSIGN(s.body, block("endset"));
  return {};
}

Result<void> Parser::signature(MacroDef& macro) {
  INFER_TRY(expect_op("("));
  while (!take_op(")")) {
    if (!macro.params.empty()) INFER_TRY(expect_op(","));
    INFER_ASSIGN(std::string name, expect_name());
    if (std::find(macro.params.begin(), macro.params.end(), name) != macro.params.end())
      return fail(fmt::format("two parameters '{}'", name));
    macro.params.push_back(std::move(name));
    if (take_op("=")) {
      INFER_ASSIGN(const Expr* value, expression());
      macro.defaults.push_back(value);
    } else if (!macro.defaults.empty()) {
      return fail("a parameter without a default follows one with a default");
    }
  }
  return {};
}

Result<void> Parser::macro_body(MacroDef& macro, std::string_view end) {
  const int n_loops = std::exchange(n_loops_, 0);
  macros_.push_back(&macro);
  auto inside = block(end);
  macros_.pop_back();
  n_loops_ = n_loops;
  INFER_ASSIGN(macro.body, std::move(inside));
  return {};
}

Result<void> Parser::macro_statement(Stmt& s) {
  s.kind = StmtKind::kMacro;
  INFER_ASSIGN(s.macro.name, expect_name());
  macros_.push_back(&s.macro);  // defaults may name kwargs
  auto got = signature(s.macro);
  macros_.pop_back();
  INFER_TRY(std::move(got));
  return macro_body(s.macro, "endmacro");
}

Result<void> Parser::call_statement(Stmt& s) {
  s.kind = StmtKind::kCallBlock;
  s.macro.name = "caller";
  if (is_op("(")) INFER_TRY(signature(s.macro));
  INFER_ASSIGN(s.expr, expression());
  if (s.expr->kind != ExprKind::kCall) return fail("'call' needs a call");
  return macro_body(s.macro, "endcall");
}

Result<void> Parser::filter_statement(Stmt& s) {
  s.kind = StmtKind::kFilterBlock;
  tokens_[--at_] = {.type = TokenType::kOperator, .line = now().line, .text = "|"};
  INFER_ASSIGN(s.expr, filters(nullptr));
  INFER_ASSIGN(s.body, block("endfilter"));
  return {};
}

Result<void> Parser::with_statement(Stmt& s) {
  s.kind = StmtKind::kWith;
  while (now().type != TokenType::kBlockEnd) {
    if (!s.assignments.empty()) INFER_TRY(expect_op(","));
    INFER_ASSIGN(Target to, target_part(false));
    INFER_TRY(expect_op("="));
    INFER_ASSIGN(const Expr* value, expression());
    s.assignments.emplace_back(std::move(to), value);
  }
  INFER_ASSIGN(s.body, block("endwith"));
  return {};
}

Result<Target> Parser::target_part(bool with_attributes) {
  const Nested nested(*this);
  INFER_TRY(deeper());
  if (take_op("(")) {
    INFER_ASSIGN(Target inner, target(with_attributes, false));
    INFER_TRY(expect_op(")"));
    return inner;
  }
  Target out;
  INFER_ASSIGN(out.name, expect_name());
  constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
  if (std::find(std::begin(kConstants), std::end(kConstants), out.name) != std::end(kConstants))
    return fail(fmt::format("cannot assign to '{}'", out.name));
  if (with_attributes && take_op(".")) {
    INFER_ASSIGN(out.attribute, expect_name());
  }
  return out;
}

Result<Target> Parser::target(bool with_attributes, bool until_in) {
  INFER_ASSIGN(Target first, target_part(with_attributes));
  if (!is_op(",")) return first;
  Target out{.is_tuple = true};
  out.parts.push_back(std::move(first));
  while (take_op(",")) {
    if ((until_in && is_name("in")) || is_op(")") || is_op("=") ||
        now().type == TokenType::kBlockEnd)
      break;
    INFER_ASSIGN(Target part, target_part(with_attributes));
    out.parts.push_back(std::move(part));
  }
  return out;
}

Result<std::unique_ptr<const Tree>> parse_template(std::string_view source, const Limits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "a template of {} bytes; the limit is {}",
                      source.size(), limits.max_source_bytes);
  }
  INFER_ASSIGN(std::vector<Token> tokens, tokenize(source));
  auto tree = std::make_unique<Tree>();
  INFER_ASSIGN(tree->body, Parser(std::move(tokens), limits, *tree).body({}));
  return std::unique_ptr<const Tree>(std::move(tree));
}

}  // namespace infer::text::jinja
