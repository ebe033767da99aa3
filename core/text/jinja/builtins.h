#pragma once

#include <span>
#include <string_view>

#include "core/text/jinja/objects.h"

/// Tables of what every template can use. Each file of built-ins gives one part of a table.
namespace infer::text::jinja {

struct FilterDef {
  std::string_view name;
  Params params = {};
  Result<Value> (*fn)(Interp&, const Value& in, const Bound& args) = nullptr;
  /// In place of fn: for filters that hand their arguments on.
  Result<Value> (*fn_args)(Interp&, const Value& in, const Args& args) = nullptr;
};

struct TestDef {
  std::string_view name;
  Params params = {};
  Result<bool> (*fn)(Interp&, const Value& in, const Bound& args) = nullptr;
};

std::span<const FilterDef> text_filters();
std::span<const FilterDef> list_filters();
std::span<const FilterDef> number_filters();
std::span<const FilterDef> select_filters();
/// nullptr when there is none.
const FilterDef* find_filter(std::string_view name);
const TestDef* find_test(std::string_view name);

std::span<const MethodDef> text_methods();
std::span<const MethodDef> text_query_methods();
std::span<const MethodDef> dict_methods();
std::span<const MethodDef> list_methods();
std::span<const MethodDef> loop_methods();
/// nullptr when a value of this type has no such method.
const MethodDef* find_method(const Value& self, std::string_view name);

/// range, dict, namespace, raise_exception, strftime_now.
std::span<Function* const> global_functions();

/// Local time `unix_s` (seconds, offset applied) by a strftime format, in English.
std::string format_time(int64_t unix_s, std::string_view format);

}  // namespace infer::text::jinja
