#include "core/text/jinja/operators.h"

#include <cmath>

#include <fmt/format.h>

#include "core/base/error.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

constexpr std::string_view kOpNames[] = {
    "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

std::string_view name_of(Op op) { return kOpNames[static_cast<size_t>(op)]; }

Error unsupported(Op op, const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) return undefined_error(*v);
  }
  return make_error(ErrorCode::kInvalidArgument, "unsupported operand types for {}: '{}' and '{}'",
                    name_of(op), type_name(a), type_name(b));
}

Error too_large() { return make_error(ErrorCode::kUnsupported, "an integer of more than 64 bits"); }
Error by_zero() { return make_error(ErrorCode::kInvalidArgument, "division by zero"); }

Result<Value> power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return by_zero();
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t out = 1;
  for (;;) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) return too_large();
    exponent >>= 1;
    if (exponent == 0) return Value(out);
    if (__builtin_mul_overflow(base, base, &base)) return too_large();
  }
}

Result<Value> ints(Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &out)) return too_large();
      return Value(out);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &out)) return too_large();
      return Value(out);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &out)) return too_large();
      return Value(out);
    case Op::kDiv:
      if (b == 0) return by_zero();
      return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case Op::kPow:
      return power(a, b);
    default:
      break;
  }
  if (b == 0) return by_zero();
  if (b == -1) {  // the one quotient that does not fit
    if (op == Op::kMod) return Value(int64_t{0});
    if (__builtin_sub_overflow(int64_t{0}, a, &out)) return too_large();
    return Value(out);
  }
  const bool inexact = a % b != 0 && (a % b < 0) != (b < 0);
  return op == Op::kMod ? Value(a % b + (inexact ? b : 0)) : Value(a / b - (inexact ? 1 : 0));
}

Result<Value> floats(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSub:
      return Value(a - b);
    case Op::kMul:
      return Value(a * b);
    case Op::kPow:
      if (a == 0.0 && b < 0.0) return by_zero();
      if (a < 0.0 && b != std::floor(b))
        return make_error(ErrorCode::kUnsupported, "a power that is complex");
      return Value(std::pow(a, b));
    default:
      break;
  }
  if (b == 0.0) return by_zero();
  if (op == Op::kDiv) return Value(a / b);
  double mod = std::fmod(a, b);
  if (mod != 0.0 && (mod < 0.0) != (b < 0.0)) mod += b;
  if (op == Op::kMod) return Value(mod == 0.0 ? std::copysign(0.0, b) : mod);
  return Value(std::floor((a - mod) / b + 0.5));
}

Result<Value> repeated(Budget& budget, const Value& v, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (v.is_text()) {
    TextBuilder out(budget);
    out.repeat(*v.as_text(), static_cast<size_t>(times));
    INFER_ASSIGN(TextPtr text, out.finish());
    return Value(std::move(text));
  }
  const List& list = *v.as_list();
  const auto n = static_cast<int64_t>(list.items.size());
  int64_t all = 0;
  if (__builtin_mul_overflow(n, times, &all)) return too_large();
  INFER_TRY(budget.charge(all));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(all));
  for (int64_t i = 0; n > 0 && i < times; ++i)
    items.insert(items.end(), list.items.begin(), list.items.end());
  return make_list(budget, std::move(items), list.kind);
}

bool repeats(const Value& v) {
  return v.is_text() || (v.is(Kind::kList) && (v.as_list()->kind == ListKind::kList ||
                                               v.as_list()->kind == ListKind::kTuple));
}

Result<Value> joined_lists(Budget& budget, const List& a, const List& b) {
  INFER_TRY(budget.charge(static_cast<int64_t>(a.items.size() + b.items.size())));
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return make_list(budget, std::move(items), a.kind);
}

/// Python's slice.indices: begin, end and step over n items.
struct Steps {
  int64_t begin, end, step;
};

Result<int64_t> index_of(const Value& v) {
  if (v.is_int()) return v.as_int();
  if (v.is_undefined()) return undefined_error(v);
  return make_error(ErrorCode::kInvalidArgument, "slice indices must be integers, not {}",
                    type_name(v));
}

Result<Steps> steps_of(int64_t n, const Value* begin, const Value* end, const Value* step) {
  Steps out{0, n, 1};
  const auto given = [](const Value* v) { return v != nullptr && !v->is_none(); };
  if (given(step)) {
    INFER_ASSIGN(out.step, index_of(*step));
  }
  if (out.step == 0) return make_error(ErrorCode::kInvalidArgument, "a slice step cannot be zero");
  const bool back = out.step < 0;
  const int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
  const auto clamp = [&](int64_t i) {
    if (i < 0) i = i < -n ? low : i + n;
    return std::min(std::max(i, low), high);
  };
  out.begin = back ? high : low;
  out.end = back ? low : high;
  if (given(begin)) {
    INFER_ASSIGN(const int64_t i, index_of(*begin));
    out.begin = clamp(i);
  }
  if (given(end)) {
    INFER_ASSIGN(const int64_t i, index_of(*end));
    out.end = clamp(i);
  }
  out.step = std::min(std::max(out.step, -n - 1), n + 1);
  return out;
}

Result<Value> slice_text(Budget& budget, const TextPtr& text, const Value* begin, const Value* end,
                         const Value* step) {
  const std::string_view s = text->bytes;
  INFER_TRY(budget.charge(static_cast<int64_t>(s.size() / 16)));
  INFER_ASSIGN(const Steps at, steps_of(static_cast<int64_t>(count_chars(s)), begin, end, step));
  if (at.step == 1) {
    if (at.begin >= at.end) return Value::text("");
    const size_t from = char_offset(s, static_cast<size_t>(at.begin));
    const size_t to = from + char_offset(s.substr(from), static_cast<size_t>(at.end - at.begin));
    INFER_ASSIGN(TextPtr out, sub_text(budget, text, from, to));
    return Value(std::move(out));
  }
  std::vector<size_t> starts;
  INFER_TRY(budget.charge(static_cast<int64_t>(s.size())));
  for (size_t i = 0; i < s.size(); i += char_len(s, i)) starts.push_back(i);
  TextBuilder out(budget);
  for (int64_t i = at.begin; at.step > 0 ? i < at.end : i > at.end; i += at.step) {
    const size_t from = starts[static_cast<size_t>(i)];
    out.append(*text, from, from + char_len(s, from));
  }
  INFER_ASSIGN(TextPtr done, out.finish());
  return Value(std::move(done));
}

}  // namespace

Result<Value> arithmetic(Budget& budget, Op op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_int() && b.is_int()) return ints(op, a.as_int(), b.as_int());
    return floats(op, a.as_double(), b.as_double());
  }
  if (op == Op::kAdd) {
    if (a.is_text() && b.is_text()) {
      INFER_ASSIGN(TextPtr text, concat(budget, *a.as_text(), *b.as_text()));
      return Value(std::move(text));
    }
    if (a.is(Kind::kList) && b.is(Kind::kList) && repeats(a) &&
        a.as_list()->kind == b.as_list()->kind)
      return joined_lists(budget, *a.as_list(), *b.as_list());
  }
  if (op == Op::kMul && repeats(a) && b.is_int()) return repeated(budget, a, b.as_int());
  if (op == Op::kMul && repeats(b) && a.is_int()) return repeated(budget, b, a.as_int());
  if (op == Op::kMod && a.is_text()) return format_percent(budget, *a.as_text(), b);
  return unsupported(op, a, b);
}

Result<Value> negate(const Value& v, bool minus) {
  if (v.is_undefined()) return undefined_error(v);
  if (v.is(Kind::kFloat)) return Value(minus ? -v.as_double() : v.as_double());
  if (!v.is_int())
    return make_error(ErrorCode::kInvalidArgument, "a bad operand type for unary {}: '{}'",
                      minus ? '-' : '+', type_name(v));
  return minus ? ints(Op::kSub, 0, v.as_int()) : Result<Value>(Value(v.as_int()));
}

Result<bool> compare(Budget& budget, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEq:
      return equal(budget, a, b);
    case Op::kNe: {
      INFER_ASSIGN(const bool same, equal(budget, a, b));
      return !same;
    }
    case Op::kIn:
      return contains(budget, a, b);
    case Op::kNotIn: {
      INFER_ASSIGN(const bool in, contains(budget, a, b));
      return !in;
    }
    default:
      break;
  }
  INFER_ASSIGN(const std::partial_ordering o, order(budget, a, b, name_of(op)));
  switch (op) {
    case Op::kLt:
      return std::is_lt(o);
    case Op::kLe:
      return std::is_lteq(o);
    case Op::kGt:
      return std::is_gt(o);
    default:
      return std::is_gteq(o);
  }
}

Result<Value> slice(Budget& budget, const Value& v, const Value* begin, const Value* end,
                    const Value* step) {
  if (v.is_text()) return slice_text(budget, v.as_text(), begin, end, step);
  if (v.is_undefined()) return undefined_error(v);
  if (!v.is(Kind::kList) || !v.as_list()->is_sequence())
    return make_error(ErrorCode::kInvalidArgument, "'{}' object has no slices", type_name(v));
  const List& list = *v.as_list();
  INFER_ASSIGN(const Steps at, steps_of(static_cast<int64_t>(list.items.size()), begin, end, step));
  std::vector<Value> items;
  for (int64_t i = at.begin; at.step > 0 ? i < at.end : i > at.end; i += at.step) {
    INFER_TRY(budget.charge(1));
    items.push_back(list.items[static_cast<size_t>(i)]);
  }
  return make_list(budget, std::move(items),
                   list.kind == ListKind::kRange ? ListKind::kList : list.kind);
}

}  // namespace infer::text::jinja
