#pragma once

#include "core/text/jinja/objects.h"

namespace infer::text::jinja {

/// "a.b.0" (or a number) of an item: the `attribute` of filters. Undefined when the last part is
/// missing.
Result<Value> item_attribute(Interp& interp, const Value& item, const Value& attribute);

}  // namespace infer::text::jinja
