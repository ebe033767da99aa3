#pragma once

#include <string>

#include "core/base/result.h"

namespace infer::tools {

/// A whole file as bytes; what gzip made is unpacked. Errors: kNotFound, kIo, kCorrupt for a
/// damaged .gz, kUnsupported for more than 2 GiB, all naming the file.
Result<std::string> read_text_file(const std::string& path);

}  // namespace infer::tools
