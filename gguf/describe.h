#pragma once

#include <string>
#include <string_view>

#include "gguf/reader.h"

/// Bytes from files made fit for one line of a message.
namespace infer::gguf {

/// Control characters and bytes that are not UTF-8 become \xNN; text longer than max_bytes is cut
/// and ends in "...".
std::string printable(std::string_view bytes, size_t max_bytes = 96);

/// A value with its type: "u32 5", "str 'llama'", "array of 49152 str".
std::string describe(const Value& value);

}  // namespace infer::gguf
