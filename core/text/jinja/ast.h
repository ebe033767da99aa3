#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "core/text/jinja/value.h"

/// A parsed template. Nodes live in the two deques of a Tree and point to each other.
namespace infer::text::jinja {

struct FilterDef;
struct TestDef;
struct MacroDef;
struct Expr;

enum class ExprKind : uint8_t {
  kConst,    ///< value
  kName,     ///< name
  kList,     ///< args
  kTuple,    ///< args
  kDict,     ///< args: key, value, key, value, ...
  kConcat,   ///< args
  kAnd,      ///< args
  kOr,       ///< args
  kNot,      ///< args[0]
  kNegate,   ///< args[0]
  kPlus,     ///< args[0]
  kBinary,   ///< args[0] op args[1]
  kCompare,  ///< args[0] ops[0] args[1] ops[1] args[2] ...
  kCond,     ///< args[0] if args[1] else args[2] (nullptr: undefined)
  kAttr,     ///< args[0].name
  kItem,     ///< args[0][args[1]]
  kSlice,    ///< args[0][args[1]:args[2]:args[3]], nullptr where left out
  kCall,     ///< args[0](call)
  kFilter,   ///< args[0]|name(call); args[0] is nullptr in a filter block
  kTest      ///< args[0] is name(call)
};

enum class Op : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn
};

struct CallArgs {
  std::vector<const Expr*> pos;
  std::vector<std::pair<std::string, const Expr*>> named;
  const Expr* star = nullptr;         ///< *args
  const Expr* double_star = nullptr;  ///< **kwargs
};

struct Expr {
  ExprKind kind = ExprKind::kConst;
  Op op = Op::kAdd;
  int line = 0;
  int height = 1;  ///< levels below and including this one
  std::string name{};
  Value value{};
  std::vector<const Expr*> args{};
  std::vector<Op> ops{};
  CallArgs call{};
  const FilterDef* filter = nullptr;  ///< nullptr: unknown, an error when it is reached
  const TestDef* test = nullptr;
};

struct Stmt;
using Body = std::vector<const Stmt*>;

/// What is assigned to: a name, an attribute of a namespace, or several of them.
struct Target {
  std::string name{};
  std::string attribute{};  ///< name.attribute
  std::vector<Target> parts{};
  bool is_tuple = false;
};

struct MacroDef {
  std::string name{};
  std::vector<std::string> params;
  std::vector<const Expr*> defaults;  ///< of the last parameters
  Body body;
  bool wants_varargs = false, wants_kwargs = false, wants_caller = false;
};

enum class StmtKind : uint8_t {
  kText,         ///< text
  kOutput,       ///< expr
  kIf,           ///< branches, other
  kFor,          ///< target, expr, test, body, other
  kSet,          ///< target, expr
  kSetBlock,     ///< target, body, expr: filters or nullptr
  kMacro,        ///< macro
  kCallBlock,    ///< expr: the call, macro: its block
  kFilterBlock,  ///< expr, body
  kWith,         ///< assignments, body
  kScope,        ///< body ({% generation %})
  kBreak,
  kContinue
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  TextPtr text{};
  const Expr* expr = nullptr;
  const Expr* test = nullptr;
  Target target{};
  Body body{}, other{};
  std::vector<std::pair<const Expr*, Body>> branches{};
  std::vector<std::pair<Target, const Expr*>> assignments{};
  MacroDef macro{};
};

struct Tree {
  std::deque<Expr> exprs;
  std::deque<Stmt> stmts;
  Body body;
};

}  // namespace infer::text::jinja
