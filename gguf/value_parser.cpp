#include "gguf/value_parser.h"

#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::gguf {

int64_t fixed_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      return 0;
  }
  return 0;
}

bool is_known_value_type(uint32_t id) { return id <= static_cast<uint32_t>(ValueType::kF64); }

Error ValueParser::truncated(const Cursor& cursor) const {
  return make_error(ErrorCode::kCorrupt, "{}: file ends inside key '{}' (at byte {}, {} left)",
                    file_, printable(key_), cursor.pos(), cursor.remaining());
}

Result<ValueType> ValueParser::parse_type(Cursor& cursor) const {
  const auto id = cursor.read<uint32_t>();
  if (!id) return truncated(cursor);
  if (!is_known_value_type(*id)) {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' has unknown value type {}", file_,
                      printable(key_), *id);
  }
  return static_cast<ValueType>(*id);
}

Result<Value> ValueParser::parse(Cursor& cursor, ValueType type) const {
  if (type == ValueType::kArray) return parse_array(cursor, 1);
  Value v;
  v.type_ = type;
  v.elem_ = type;
  v.n_bytes_ = fixed_bytes(type);
  if (type == ValueType::kString) {
    const auto length = cursor.read<uint64_t>();
    if (!length) return truncated(cursor);
    if (*length > cursor.remaining()) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: key '{}' is a string of {} bytes, {} are left in the file", file_,
                        printable(key_), *length, cursor.remaining());
    }
    v.n_bytes_ = static_cast<int64_t>(*length);
  }
  v.data_ = cursor.here();
  if (!cursor.skip(static_cast<uint64_t>(v.n_bytes_))) return truncated(cursor);
  return v;
}

Result<void> ValueParser::parse_strings(Cursor& cursor, Value& out) const {
  const size_t begin = cursor.pos();
  if (out.n_ > kMarkStep) out.marks_.reserve(static_cast<size_t>((out.n_ - 1) / kMarkStep + 1));
  for (int64_t i = 0; i < out.n_; ++i) {
    if (out.n_ > kMarkStep && i % kMarkStep == 0) out.marks_.push_back(cursor.pos() - begin);
    const auto length = cursor.read<uint64_t>();
    if (!length) return truncated(cursor);
    if (!cursor.skip(*length)) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: key '{}' has string {} of {} bytes, {} are left in the file", file_,
                        printable(key_), i, *length, cursor.remaining());
    }
  }
  return {};
}

Result<Value> ValueParser::parse_array(Cursor& cursor, int depth) const {
  if (depth > kMaxDepth) {
    return make_error(ErrorCode::kUnsupported, "{}: key '{}' has arrays nested more than {} deep",
                      file_, printable(key_), kMaxDepth);
  }
  Value v;
  v.type_ = ValueType::kArray;
  INFER_ASSIGN(v.elem_, parse_type(cursor));
  const auto n = cursor.read<uint64_t>();
  if (!n) return truncated(cursor);
  const int64_t fixed = fixed_bytes(v.elem_);
  // An inner array takes at least its type and count, a string at least its length.
  const int64_t least = fixed > 0 ? fixed : (v.elem_ == ValueType::kArray ? 12 : 8);
  if (*n > cursor.remaining() / static_cast<uint64_t>(least)) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: key '{}' is an array of {} {}, {} bytes are left in the file", file_,
                      printable(key_), *n, name_of(v.elem_), cursor.remaining());
  }
  v.n_ = static_cast<int64_t>(*n);
  v.data_ = cursor.here();
  if (fixed > 0) {
    cursor.skip(*n * static_cast<uint64_t>(fixed));  // fits: checked above
  } else if (v.elem_ == ValueType::kString) {
    INFER_TRY(parse_strings(cursor, v));
  } else {
    for (int64_t i = 0; i < v.n_; ++i) INFER_TRY(parse_array(cursor, depth + 1));
  }
  v.n_bytes_ = cursor.here() - v.data_;
  return v;
}

}  // namespace infer::gguf
