#pragma once

#include "core/text/jinja/ast.h"

/// Python's operators over values.
namespace infer::text::jinja {

class Interp;

/// kAdd .. kPow. Integers that leave 64 bits are errors.
Result<Value> arithmetic(Budget& budget, Op op, const Value& a, const Value& b);
Result<Value> negate(const Value& v, bool minus);
/// kEq .. kNotIn.
Result<bool> compare(Budget& budget, Op op, const Value& a, const Value& b);
/// v[begin:end:step] of a text or a list; nullptr or None: left out.
Result<Value> slice(Budget& budget, const Value& v, const Value* begin, const Value* end,
                    const Value* step);
/// v.name: methods first, then items. Undefined when there is neither.
Result<Value> get_attribute(Interp& interp, const Value& v, std::string_view name);
/// v[key]: items first, then methods.
Result<Value> get_item(Interp& interp, const Value& v, const Value& key);
/// Python's "%" of a text: %s %r %d %i %x %f %%, with flags, width and precision.
Result<Value> format_percent(Budget& budget, const Text& format, const Value& args);

}  // namespace infer::text::jinja
