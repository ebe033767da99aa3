#pragma once

#include <string_view>

#include "core/text/jinja/value.h"

namespace infer::text::jinja {

struct JsonStyle {
  bool ascii = false, sort_keys = false;
  bool pretty = false;
  std::string indent;  ///< of one level, with `pretty`
  std::string_view item_separator = ", ", key_separator = ": ";
};

/// As Python's json.dumps writes it. Errors: values that have no JSON.
Result<TextPtr> to_json(Budget& budget, const Value& v, const JsonStyle& style);

/// RFC 8259; integers must fit in 64 bits. All strings are user data. Errors: kInvalidArgument with
/// the byte position.
Result<Value> parse_json(Budget& budget, std::string_view json);

}  // namespace infer::text::jinja
