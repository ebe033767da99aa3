#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/base/dtype.h"
#include "gguf/reader.h"

/// GGUF bytes made by hand, right or wrong: every number of the file can be overridden. For good
/// models of a given architecture see gguf_image.h; this one is for what a reader must refuse.
namespace infer::test {

using Bytes = std::vector<std::byte>;

/// Appends the little-endian bytes of a number, or of characters.
template <class T>
void put(Bytes& out, T v) {
  const size_t at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &v, sizeof(T));
}
void put_text(Bytes& out, std::string_view text);
/// A length and the characters, as GGUF stores strings.
void put_string(Bytes& out, std::string_view text);

struct GgufBuilder {
  struct Kv {
    std::string key;
    uint32_t type = 0;                     ///< any number
    Bytes value;                           ///< what follows the type
    std::optional<uint64_t> key_length{};  ///< written in place of key.size()
  };
  struct Tensor {
    std::string name;
    uint32_t type = 0;           ///< GGUF id, any number
    std::vector<int64_t> shape;  ///< k first
    Bytes data;                  ///< padded when written
    std::optional<uint64_t> name_length{};
    std::optional<uint32_t> n_dims{};
    std::optional<uint64_t> offset{};  ///< written in place of the right one
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors{};
  std::optional<uint64_t> n_kv{};
  /// What data is laid out with; general.alignment is the caller's to set.
  uint32_t alignment = 32;
  std::vector<Kv> kvs;
  std::vector<Tensor> tensors;

  // Setters replace the value of a key, or add it at the end.
  GgufBuilder& set_raw(std::string_view key, uint32_t type, Bytes value);
  template <class T>
  requires std::is_arithmetic_v<T> GgufBuilder& set(std::string_view key, T value) {
    Bytes bytes;
    put(bytes, value);
    return set_raw(key, type_id<T>(), std::move(bytes));
  }
  GgufBuilder& set_string(std::string_view key, std::string_view value);
  GgufBuilder& set_strings(std::string_view key, const std::vector<std::string>& values);
  template <class T>
  requires std::is_arithmetic_v<T> GgufBuilder& set_array(std::string_view key,
                                                          const std::vector<T>& values) {
    Bytes bytes = array_head(type_id<T>(), values.size());
    for (const T v : values) put<T>(bytes, v);
    return set_raw(key, kArray, std::move(bytes));
  }
  /// An array whose count is a lie, or whose elements come from `body`.
  GgufBuilder& set_array_raw(std::string_view key, uint32_t elem_type, uint64_t count,
                             Bytes body = {});
  GgufBuilder& remove(std::string_view key);
  Kv& kv(std::string_view key);  ///< must be there

  /// Adds a tensor of zero bytes.
  GgufBuilder& add_tensor(std::string_view name, DType type, const std::vector<int64_t>& shape);
  Tensor& tensor(std::string_view name);  ///< must be there

  /// The file up to the last tensor record, unpadded.
  Bytes header() const;
  /// The whole file.
  Bytes bytes() const;

  static Bytes array_head(uint32_t elem_type, uint64_t count);
  template <class T>
  static constexpr uint32_t type_id() {
    if constexpr (std::is_same_v<T, bool>) return 7;
    if constexpr (std::is_same_v<T, float>) return 6;
    if constexpr (std::is_same_v<T, double>) return 12;
    constexpr uint32_t kSigned = std::is_signed_v<T> ? 1 : 0;
    if constexpr (sizeof(T) == 1) return 0 + kSigned;
    if constexpr (sizeof(T) == 2) return 2 + kSigned;
    if constexpr (sizeof(T) == 4) return 4 + kSigned;
    return 10 + kSigned;
  }
  static constexpr uint32_t kString = 8;
  static constexpr uint32_t kArray = 9;
};

/// A small good file with a key of every type, arrays of every type, and tensors of several types.
GgufBuilder good_gguf();

/// Reads every key, every array element and every tensor byte through the public interface; gives a
/// checksum, so that nothing is optimised away.
uint64_t touch_everything(const gguf::Reader& file);

}  // namespace infer::test
