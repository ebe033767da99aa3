#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/model/hf.h"

namespace infer::quantize {

/// JSON text as a value; `name` is named in errors. Errors: kCorrupt for what is no JSON, is nested
/// deeper than 64 or has a name twice in one object; kOutOfMemory for more than 2^22 values.
Result<model::HfValue> parse_json(std::string_view text, const std::string& name);
/// The same from a file of at most 64 MiB. Errors: also kNotFound, kIo.
Result<model::HfValue> read_json(const std::string& path);

}  // namespace infer::quantize
