#include <array>

#include "core/base/check.h"
#include "core/base/error.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/reader.h"
#include "gguf/value_parser.h"

namespace infer::gguf {
namespace {

constexpr std::array<std::string_view, 13> kTypeNames = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"};

Error wrong_type(ValueType got, std::string_view wanted) {
  return make_error(ErrorCode::kCorrupt, "value of type {} where {} is expected", name_of(got),
                    wanted);
}

Result<int64_t> load_int(ValueType type, const std::byte* p) {
  switch (type) {
    case ValueType::kU8:
      return int64_t{load_le<uint8_t>(p)};
    case ValueType::kI8:
      return int64_t{load_le<int8_t>(p)};
    case ValueType::kU16:
      return int64_t{load_le<uint16_t>(p)};
    case ValueType::kI16:
      return int64_t{load_le<int16_t>(p)};
    case ValueType::kU32:
      return int64_t{load_le<uint32_t>(p)};
    case ValueType::kI32:
      return int64_t{load_le<int32_t>(p)};
    case ValueType::kI64:
      return load_le<int64_t>(p);
    case ValueType::kU64: {
      const auto v = load_le<uint64_t>(p);
      if (v > static_cast<uint64_t>(INT64_MAX)) {
        return make_error(ErrorCode::kCorrupt, "value {} does not fit in 63 bits", v);
      }
      return static_cast<int64_t>(v);
    }
    default:
      return wrong_type(type, "an integer");
  }
}

Result<double> load_float(ValueType type, const std::byte* p) {
  if (type == ValueType::kF32) return double{load_le<float>(p)};
  if (type == ValueType::kF64) return load_le<double>(p);
  const Result<int64_t> i = load_int(type, p);
  if (!i.ok()) return type == ValueType::kU64 ? i.error() : wrong_type(type, "a number");
  if (*i > (int64_t{1} << 53) || *i < -(int64_t{1} << 53)) {
    return make_error(ErrorCode::kCorrupt, "value {} is not exact as a float", *i);
  }
  return static_cast<double>(*i);
}

std::string_view text_at(const std::byte* p, int64_t n) {
  return {reinterpret_cast<const char*>(p), static_cast<size_t>(n)};
}

}  // namespace

std::string_view name_of(ValueType type) {
  const auto i = static_cast<size_t>(type);
  return i < kTypeNames.size() ? kTypeNames[i] : "unknown";
}

Result<int64_t> Value::as_int() const { return load_int(type_, data_); }

Result<double> Value::as_float() const { return load_float(type_, data_); }

Result<bool> Value::as_bool() const {
  if (type_ != ValueType::kBool) return wrong_type(type_, "a bool");
  return *data_ != std::byte{0};
}

Result<std::string_view> Value::as_string() const {
  if (type_ != ValueType::kString) return wrong_type(type_, "a string");
  return text_at(data_, n_bytes_);
}

Result<int64_t> Value::int_at(int64_t i) const {
  if (!is_array()) return wrong_type(type_, "an array");
  INFER_CHECK(i >= 0 && i < n_, "element {} of {}", i, n_);
  return load_int(elem_, data_ + i * fixed_bytes(elem_));
}

Result<double> Value::float_at(int64_t i) const {
  if (!is_array()) return wrong_type(type_, "an array");
  INFER_CHECK(i >= 0 && i < n_, "element {} of {}", i, n_);
  return load_float(elem_, data_ + i * fixed_bytes(elem_));
}

Result<bool> Value::bool_at(int64_t i) const {
  if (!is_array()) return wrong_type(type_, "an array");
  INFER_CHECK(i >= 0 && i < n_, "element {} of {}", i, n_);
  if (elem_ != ValueType::kBool) return wrong_type(elem_, "a bool");
  return data_[i] != std::byte{0};
}

Result<std::string_view> Value::string_at(int64_t i) const {
  if (!is_array()) return wrong_type(type_, "an array");
  INFER_CHECK(i >= 0 && i < n_, "element {} of {}", i, n_);
  if (elem_ != ValueType::kString) return wrong_type(elem_, "a string");
  const std::byte* p = data_;
  int64_t at = 0;
  if (!marks_.empty()) {
    at = i / ValueParser::kMarkStep * ValueParser::kMarkStep;
    p += marks_[static_cast<size_t>(i / ValueParser::kMarkStep)];
  }
  for (; at < i; ++at) p += sizeof(uint64_t) + load_le<uint64_t>(p);
  return text_at(p + sizeof(uint64_t), static_cast<int64_t>(load_le<uint64_t>(p)));
}

Result<Value> Value::array_at(int64_t i) const {
  if (!is_array()) return wrong_type(type_, "an array");
  INFER_CHECK(i >= 0 && i < n_, "element {} of {}", i, n_);
  if (elem_ != ValueType::kArray) return wrong_type(elem_, "an array");
  Cursor cursor({data_, static_cast<size_t>(n_bytes_)});
  const ValueParser parser("memory", "array");  // these bytes were checked when the file was parsed
  for (int64_t at = 0; at < i; ++at) INFER_TRY(parser.parse(cursor, ValueType::kArray));
  return parser.parse(cursor, ValueType::kArray);
}

std::span<const std::byte> Value::raw() const {
  if (data_ == nullptr) return {};
  int64_t head = 0;
  if (type_ == ValueType::kString) head = sizeof(uint64_t);
  if (type_ == ValueType::kArray) head = sizeof(uint32_t) + sizeof(uint64_t);
  return {data_ - head, static_cast<size_t>(head + n_bytes_)};
}

}  // namespace infer::gguf
