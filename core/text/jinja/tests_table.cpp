// "x is defined" and the other tests.

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"
#include "core/text/jinja/operators.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;
using Answer = Result<bool>;

template <Kind kKind>
Answer of_kind(Interp&, const Value& v, const Bound&) {
  return v.is(kKind);
}
template <Op kOp>
Answer compared(Interp& in, const Value& v, const Bound& args) {
  return compare(in.budget(), kOp, v, *args[0]);
}
template <bool kWhich>
Answer is_constant(Interp&, const Value& v, const Bound&) {
  return v.is(Kind::kBool) && v.as_bool() == kWhich;
}

Answer defined(Interp&, const Value& v, const Bound&) { return !v.is_undefined(); }
Answer number(Interp&, const Value& v, const Bound&) { return v.is_number(); }

Answer callable(Interp&, const Value& v, const Bound&) {
  return v.is_undefined() ||
         (v.is(Kind::kObject) && v.as_object()->kind != Object::Kind::kNamespace);
}

Answer sequence(Interp&, const Value& v, const Bound&) {
  return v.is_text() || v.is(Kind::kDict) || v.is_undefined() ||
         (v.is(Kind::kList) && v.as_list()->is_sequence());
}

Answer iterable(Interp&, const Value& v, const Bound&) {
  if (v.is(Kind::kObject)) return v.as_object()->kind == Object::Kind::kLoop;
  return v.is_text() || v.is(Kind::kDict) || v.is_undefined() || v.is(Kind::kList);
}

Answer same_as(Interp& in, const Value& v, const Bound& args) {
  if (v.kind() != args[0]->kind()) return false;
  switch (v.kind()) {
    case Kind::kList:
      return v.as_list() == args[0]->as_list();
    case Kind::kDict:
      return v.as_dict() == args[0]->as_dict();
    default:
      return equal(in.budget(), v, *args[0]);
  }
}

Result<int64_t> remainder(Interp& in, const Value& v, int64_t by) {
  INFER_ASSIGN(const Value rest, arithmetic(in.budget(), Op::kMod, v, Value(by)));
  if (!rest.is_number())
    return make_error(ErrorCode::kInvalidArgument, "a number is needed, not {}", type_name(v));
  return rest.as_double() == 0.0 ? 0 : rest.as_double() == 1.0 ? 1 : 2;
}

Answer odd(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const int64_t rest, remainder(in, v, 2));
  return rest == 1;
}
Answer even(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const int64_t rest, remainder(in, v, 2));
  return rest == 0;
}
Answer divisible(Interp& in, const Value& v, const Bound& args) {
  INFER_ASSIGN(const int64_t by, int_arg("divisibleby", args[0], 1));
  INFER_ASSIGN(const int64_t rest, remainder(in, v, by));
  return rest == 0;
}

/// str.islower() and str.isupper() of the value as a text.
template <bool kUpper>
Answer in_case(Interp& in, const Value& v, const Bound&) {
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), v));
  INFER_TRY(in.budget().charge(static_cast<int64_t>(text->bytes.size() / 8)));
  bool any = false;
  for (size_t at = 0; at < text->bytes.size(); at += char_len(text->bytes, at)) {
    const int32_t cp = char_at(text->bytes, at);
    if (kUpper ? is_lower(cp) : is_upper(cp)) return false;
    any = any || is_lower(cp) || is_upper(cp);
  }
  return any;
}

Answer known_filter(Interp&, const Value& v, const Bound&) {
  return v.is_text() && find_filter(v.bytes()) != nullptr;
}
Answer known_test(Interp&, const Value& v, const Bound&) {
  return v.is_text() && find_test(v.bytes()) != nullptr;
}

constexpr TestDef kTests[] = {
    {"defined", {}, defined},
    {"undefined", {}, of_kind<Kind::kUndefined>},
    {"none", {}, of_kind<Kind::kNone>},
    {"string", {}, of_kind<Kind::kText>},
    {"mapping", {}, of_kind<Kind::kDict>},
    {"boolean", {}, of_kind<Kind::kBool>},
    {"integer", {}, of_kind<Kind::kInt>},
    {"float", {}, of_kind<Kind::kFloat>},
    {"number", {}, number},
    {"iterable", {}, iterable},
    {"sequence", {}, sequence},
    {"callable", {}, callable},
    {"true", {}, is_constant<true>},
    {"false", {}, is_constant<false>},
    {"sameas", {"other", 1}, same_as},
    {"odd", {}, odd},
    {"even", {}, even},
    {"divisibleby", {"num", 1}, divisible},
    {"lower", {}, in_case<false>},
    {"upper", {}, in_case<true>},
    {"filter", {}, known_filter},
    {"test", {}, known_test},
    {"in", {"seq", 1}, compared<Op::kIn>},
    {"eq", {"other", 1}, compared<Op::kEq>},
    {"equalto", {"other", 1}, compared<Op::kEq>},
    {"==", {"other", 1}, compared<Op::kEq>},
    {"ne", {"other", 1}, compared<Op::kNe>},
    {"!=", {"other", 1}, compared<Op::kNe>},
    {"lt", {"other", 1}, compared<Op::kLt>},
    {"lessthan", {"other", 1}, compared<Op::kLt>},
    {"<", {"other", 1}, compared<Op::kLt>},
    {"le", {"other", 1}, compared<Op::kLe>},
    {"<=", {"other", 1}, compared<Op::kLe>},
    {"gt", {"other", 1}, compared<Op::kGt>},
    {"greaterthan", {"other", 1}, compared<Op::kGt>},
    {">", {"other", 1}, compared<Op::kGt>},
    {"ge", {"other", 1}, compared<Op::kGe>},
    {">=", {"other", 1}, compared<Op::kGe>},
};

}  // namespace

const TestDef* find_test(std::string_view name) {
  const auto at = std::find_if(std::begin(kTests), std::end(kTests),
                               [&](const TestDef& t) { return t.name == name; });
  return at == std::end(kTests) ? nullptr : at;
}

}  // namespace infer::text::jinja
