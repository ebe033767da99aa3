#pragma once

#include <optional>
#include <string_view>

#include "core/text/jinja/value.h"

namespace infer::text::jinja {

/// int(text, base) and float(text) as Python reads them; nullopt where it would raise.
std::optional<int64_t> parse_int(std::string_view s, int64_t base);
std::optional<double> parse_float(std::string_view s);

}  // namespace infer::text::jinja
