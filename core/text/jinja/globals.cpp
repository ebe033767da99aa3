// The functions that every template sees.

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/jinja/builtins.h"
#include "core/text/jinja/interp.h"

namespace infer::text::jinja {
namespace {

using Kind = Value::Kind;

Result<Value> range(Interp& in, const Args& args) {
  constexpr int64_t kMost = 100'000;  // as in Jinja's sandbox
  INFER_ASSIGN(const Bound bound, bind("range", {"start,stop,step", 1}, args));
  INFER_ASSIGN(int64_t first, int_arg("range", bound[0], 0));
  INFER_ASSIGN(int64_t stop, int_arg("range", bound[1], 0));
  INFER_ASSIGN(const int64_t step, int_arg("range", bound[2], 1));
  if (bound[1] == nullptr) stop = std::exchange(first, 0);
  if (step == 0) return make_error(ErrorCode::kInvalidArgument, "range() step must not be zero");
  constexpr int64_t kFar = int64_t{1} << 62;
  if (first > kFar || first < -kFar || stop > kFar || stop < -kFar || step > kFar || step < -kFar)
    return make_error(ErrorCode::kUnsupported, "range() of numbers too large");
  const int64_t n = step > 0 ? (stop - first + step - 1) / step : (first - stop - step - 1) / -step;
  if (n > kMost)
    return make_error(ErrorCode::kOutOfMemory, "a range of more than {} numbers", kMost);
  auto list = std::make_shared<List>();
  list->kind = ListKind::kRange;
  list->first = first;
  list->stop = stop;
  list->step = step;
  INFER_TRY(in.budget().charge(1 + std::max<int64_t>(n, 0)));
  for (int64_t i = 0; i < n; ++i) list->items.emplace_back(first + i * step);
  return Value(ListPtr(std::move(list)));
}

/// dict(mapping or pairs, name=value, ...).
Result<Value> dict(Interp& in, const Args& args) {
  DictBuilder out(in.budget());
  if (args.pos.size() > 1)
    return make_error(ErrorCode::kInvalidArgument, "dict() takes at most 1 argument");
  if (!args.pos.empty() && args.pos[0].is(Kind::kDict)) {
    for (const auto& [key, value] : args.pos[0].as_dict()->entries())
      INFER_TRY(out.set(key, value));
  } else if (!args.pos.empty()) {
    INFER_ASSIGN(const ListPtr rows, items_of(in.budget(), args.pos[0]));
    for (const Value& row : rows->items) {
      INFER_ASSIGN(const ListPtr pair, items_of(in.budget(), row));
      if (pair->items.size() != 2)
        return make_error(ErrorCode::kInvalidArgument, "dict() needs pairs");
      INFER_TRY(out.set(pair->items[0], pair->items[1]));
    }
  }
  for (const auto& [name, value] : args.named) INFER_TRY(out.set(Value::text(name), value));
  return out.finish();
}

Result<Value> make_namespace(Interp& in, const Args& args) {
  INFER_TRY(in.budget().charge(4));
  INFER_ASSIGN(const Value start, dict(in, args));
  Namespace* ns = in.new_namespace();
  for (const auto& [key, value] : start.as_dict()->entries()) {
    INFER_TRY(in.budget().charge(1 + static_cast<int64_t>(ns->attributes.size() / 4)));
    if (key.is_text()) ns->set(key.bytes(), value);
  }
  return Value(unowned(ns));
}

Result<Value> raise_exception(Interp& in, const Args& args) {
  INFER_ASSIGN(const Bound bound, bind("raise_exception", {"message", 1}, args));
  INFER_ASSIGN(const TextPtr text, to_text(in.budget(), *bound[0]));
  constexpr size_t kShown = 1000;
  return make_error(ErrorCode::kInvalidArgument, "the template refuses: {}",
                    text->bytes.substr(0, char_offset(text->bytes, kShown)));
}

Result<Value> strftime_now(Interp& in, const Args& args) {
  INFER_ASSIGN(const Bound bound, bind("strftime_now", {"format", 1}, args));
  INFER_ASSIGN(const TextPtr format, text_arg("strftime_now", bound[0], ""));
  constexpr size_t kLongest = 1000;
  if (format->bytes.size() > kLongest)
    return make_error(ErrorCode::kInvalidArgument, "strftime_now: a format that is too long");
  INFER_TRY(in.budget().charge_text(format->bytes.size() * 32));
  return Value(make_text(format_time(in.now_unix(), format->bytes), !format->user.empty()));
}

}  // namespace

std::span<Function* const> global_functions() {
  static Function functions[] = {{"range", range},
                                 {"dict", dict},
                                 {"namespace", make_namespace},
                                 {"raise_exception", raise_exception},
                                 {"strftime_now", strftime_now}};
  static Function* const all[] = {&functions[0], &functions[1], &functions[2], &functions[3],
                                  &functions[4]};
  return all;
}

}  // namespace infer::text::jinja
