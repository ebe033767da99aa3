#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "gguf/reader.h"

/// Writing GGUF v3 (little endian) as a stream: keys, tensor records, begin(), tensor data in
/// order, finish().
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

/// Writes one file. It appears under its name only with finish(); until then, and for ever when
/// anything fails or the Writer is destroyed, there is a temporary file beside it at most, and the
/// destructor removes that.
///
///   INFER_ASSIGN(auto out, gguf::Writer::create("model.gguf"));
///   INFER_TRY(out->add<std::string_view>(keys::kArchitecture, "llama"));
///   INFER_TRY(out->add<uint32_t>("llama.block_count", 30));
///   INFER_TRY(out->add_tensor("token_embd.weight", DType::kF16, shape));
///   INFER_TRY(out->begin());
///   INFER_TRY(out->write(bytes));   // any chunks; tensors follow each other in the order of
///   add_tensor INFER_TRY(out->finish());
///
/// Errors: kInvalidArgument for what a GGUF file cannot hold (named), kIo naming the file.
class Writer {
 public:
  static Result<std::unique_ptr<Writer>> create(const std::string& path);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer();

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

  /// Writes the header; no key or tensor can be added after it.
  Result<void> begin();
  /// The next bytes of tensor data; tensors are padded as they end.
  Result<void> write(std::span<const std::byte> bytes);
  /// Needs the data of every tensor; gives the file its name.
  Result<void> finish();

  int64_t alignment() const { return alignment_; }
  /// Where the next byte of the file will stand.
  int64_t bytes_written() const { return n_written_; }

 private:
  enum class State { kHeader, kData, kDone, kFailed };
  struct Tensor {
    std::string name;
    int64_t n_bytes = 0;
  };

  explicit Writer(std::string path) : path_(std::move(path)) {}
  /// `value` is what stands in the file after the type.
  Result<void> add_encoded(std::string_view key, ValueType type, std::span<const std::byte> value);
  Result<void> add_fixed_array(std::string_view key, ValueType elem, size_t n,
                               std::span<const std::byte> values);
  Result<void> set_alignment(ValueType type, std::span<const std::byte> value);
  Result<void> open_temporary();
  Result<void> write_out(std::span<const std::byte> bytes);
  Result<void> write_padding(int64_t n_bytes);
  Error invalid(std::string message) const;
  Error io_error(std::string_view what);
  void remove_temporary();

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  State state_ = State::kHeader;
  int64_t alignment_ = 32;
  int64_t n_written_ = 0;
  std::vector<std::byte> kv_bytes_;        // encoded keys and values
  std::vector<std::byte> tensor_bytes_;    // encoded tensor records
  std::vector<std::string> key_names_;     // sorted
  std::vector<std::string> tensor_names_;  // sorted
  uint64_t n_kv_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<size_t> offset_places_;  // where in tensor_bytes_ each tensor's offset goes
  size_t current_ = 0;                 // tensor being written
  int64_t current_bytes_ = 0;          // written of it
};

}  // namespace infer::gguf
