#pragma once

#include <string_view>

#include "core/base/result.h"
#include "gguf/cursor.h"
#include "gguf/reader.h"

namespace infer::gguf {

/// Bytes of one element; 0 for strings and arrays, whose size is in the file.
int64_t fixed_bytes(ValueType type);
bool is_known_value_type(uint32_t id);

/// Reads metadata values and checks every byte of them, so that access needs no checks of the file.
class ValueParser {
 public:
  /// Arrays of arrays may be this deep (a plain array is 1).
  static constexpr int kMaxDepth = 4;
  /// A position is kept for one string in this many: at most 8 bytes of memory for 128 of the file.
  static constexpr int64_t kMarkStep = 16;

  /// `file` and `key` are named in errors.
  ValueParser(std::string_view file, std::string_view key) : file_(file), key_(key) {}

  /// The value of a type at the cursor, which ends up behind it. Errors: kCorrupt, kUnsupported.
  Result<Value> parse(Cursor& cursor, ValueType type) const;
  /// The type id at the cursor. Errors: kCorrupt.
  Result<ValueType> parse_type(Cursor& cursor) const;

 private:
  Result<Value> parse_array(Cursor& cursor, int depth) const;
  Result<void> parse_strings(Cursor& cursor, Value& out) const;
  Error truncated(const Cursor& cursor) const;

  std::string_view file_;
  std::string_view key_;
};

}  // namespace infer::gguf
