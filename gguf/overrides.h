#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "gguf/parse.h"
#include "gguf/reader.h"

/// Keys set from outside the file.
namespace infer::gguf {

/// "KEY=TYPE:VALUE" as llama.cpp's --override-kv takes it; TYPE is int, float, bool or str. Errors:
/// kInvalidArgument naming `flag` and the text.
Result<KeyOverride> parse_override(std::string_view text, std::string_view flag);

/// Owns what overridden keys and values point to; stays where it is.
struct OverrideStorage {
  std::deque<std::string> keys;
  std::deque<std::vector<std::byte>> values;
};

/// Sets the keys in `header`. Errors: kInvalidArgument naming the override's flag, for a key whose
/// value in the file is of another kind, or that was used before it could be set.
Result<void> apply_overrides(std::span<const KeyOverride> overrides, std::string_view path,
                             ParsedHeader* header, OverrideStorage* storage);

}  // namespace infer::gguf
