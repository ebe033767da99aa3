#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "gguf/reader.h"

namespace infer::gguf {

/// The value type a C++ type is stored as; nothing for types that GGUF has not.
template <class T>
constexpr ValueType value_type_of() {
  if constexpr (std::same_as<T, uint8_t>)
    return ValueType::kU8;
  else if constexpr (std::same_as<T, int8_t>)
    return ValueType::kI8;
  else if constexpr (std::same_as<T, uint16_t>)
    return ValueType::kU16;
  else if constexpr (std::same_as<T, int16_t>)
    return ValueType::kI16;
  else if constexpr (std::same_as<T, uint32_t>)
    return ValueType::kU32;
  else if constexpr (std::same_as<T, int32_t>)
    return ValueType::kI32;
  else if constexpr (std::same_as<T, float>)
    return ValueType::kF32;
  else if constexpr (std::same_as<T, bool>)
    return ValueType::kBool;
  else if constexpr (std::same_as<T, uint64_t>)
    return ValueType::kU64;
  else if constexpr (std::same_as<T, int64_t>)
    return ValueType::kI64;
  else if constexpr (std::same_as<T, double>)
    return ValueType::kF64;
  else
    return ValueType::kArray;
}
/// bool is left out of arrays of fixed type: std::vector<bool> has no bytes (use add_bools).
template <class T>
concept FixedValue = std::is_arithmetic_v<T> &&(value_type_of<T>() != ValueType::kArray);

/// Keys and tensor records of a GGUF v3 file as they are put together, in memory.
///
///   gguf::HeaderBuilder header("model");
///   INFER_TRY(header.add<std::string_view>(keys::kArchitecture, "llama"));
///   INFER_TRY(header.add<uint32_t>("llama.block_count", 30));
///   INFER_TRY(header.add_tensor("token_embd.weight", DType::kF16, shape));
///   INFER_ASSIGN(std::vector<std::byte> bytes, header.encode());
///
/// Errors: kInvalidArgument for what a GGUF file cannot hold, named.
class HeaderBuilder {
 public:
  /// `name` is named in errors.
  explicit HeaderBuilder(std::string name) : name_(std::move(name)) {}

  template <FixedValue T>
  Result<void> add(std::string_view key, std::type_identity_t<T> value) {
    return add_encoded(key, value_type_of<T>(), std::as_bytes(std::span(&value, 1)));
  }
  template <std::same_as<std::string_view> T>
  Result<void> add(std::string_view key, std::type_identity_t<T> value) {
    return add_string(key, value);
  }
  Result<void> add_string(std::string_view key, std::string_view value);
  template <FixedValue T>
  requires(!std::same_as<T, bool>) Result<void> add_array(std::string_view key,
                                                          std::span<const T> values) {
    return add_fixed_array(key, value_type_of<T>(), values.size(), std::as_bytes(values));
  }
  Result<void> add_bools(std::string_view key, const std::vector<bool>& values);
  Result<void> add_strings(std::string_view key, std::span<const std::string_view> values);
  /// A key of another file, byte for byte.
  Result<void> add(const KeyValue& kv);

  /// shape[0] is the contiguous dimension; 1 to 4 of them.
  Result<void> add_tensor(std::string_view name, DType type, std::span<const int64_t> shape);

  /// Everything in front of the tensor data, padded. No key or tensor can be added after it.
  Result<std::vector<std::byte>> encode();

  int64_t alignment() const { return alignment_; }

 protected:
  struct Tensor {
    std::string name;
    int64_t n_bytes = 0;
    int64_t offset = 0;  ///< in the data section; known once encoded
  };
  const std::string& name() const { return name_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  Error invalid(std::string_view message) const;

 private:
  /// `value` is what stands in the file after the type.
  Result<void> add_encoded(std::string_view key, ValueType type, std::span<const std::byte> value);
  Result<void> add_fixed_array(std::string_view key, ValueType elem, size_t n,
                               std::span<const std::byte> values);
  Result<void> set_alignment(ValueType type, std::span<const std::byte> value);

  std::string name_;
  bool encoded_ = false;
  int64_t alignment_ = 32;
  std::vector<std::byte> kv_bytes_;        // encoded keys and values
  std::vector<std::byte> tensor_bytes_;    // encoded tensor records
  std::vector<std::string> key_names_;     // sorted
  std::vector<std::string> tensor_names_;  // sorted
  uint64_t n_kv_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<size_t> offset_places_;  // where in tensor_bytes_ each tensor's offset goes
};

}  // namespace infer::gguf
