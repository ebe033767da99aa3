#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/result.h"
#include "core/base/tensor_view.h"

/// Reading GGUF v2 and v3 (little endian). Source: the GGUF specification; limits of our own are
/// named in parse.h.
namespace infer::gguf {

// clang-format off
enum class ValueType : uint32_t {
  kU8 = 0, kI8 = 1, kU16 = 2, kI16 = 3, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10,
  kI64 = 11, kF64 = 12
};
// clang-format on
std::string_view name_of(ValueType type);

/// One metadata value. Strings and arrays point into the mapped file and live as long as the
/// Reader.
class Value {
 public:
  ValueType type() const { return type_; }
  ValueType elem_type() const { return elem_; }  ///< of an array
  int64_t size() const { return n_; }            ///< elements of an array, 1 otherwise
  bool is_array() const { return type_ == ValueType::kArray; }

  /// Scalar access. Any integer type gives an int when it fits in 63 bits; floats and integers give
  /// a double when they survive it. A float is no int, a bool is no number.
  Result<int64_t> as_int() const;
  Result<double> as_float() const;
  Result<bool> as_bool() const;  ///< any byte but 0 is true, as ggml reads it
  Result<std::string_view> as_string() const;
  /// Array elements (type checked, index must be < size()).
  Result<int64_t> int_at(int64_t i) const;
  Result<double> float_at(int64_t i) const;
  Result<std::string_view> string_at(int64_t i) const;
  Result<bool> bool_at(int64_t i) const;
  /// The i-th inner array of an array of arrays (walks over the i before it).
  Result<Value> array_at(int64_t i) const;
  /// The value exactly as the file holds it, after its type: what a writer copies.
  std::span<const std::byte> raw() const;

 private:
  friend class ValueParser;
  ValueType type_ = ValueType::kU8;
  ValueType elem_ = ValueType::kU8;
  int64_t n_ = 1;
  // First byte of the scalar, of the string's text or of element 0; unaligned.
  const std::byte* data_ = nullptr;
  int64_t n_bytes_ = 0;  // from data_ to the end of the value
  // String arrays: byte position (from data_) of every kMarkStep-th element.
  std::vector<uint64_t> marks_;
};

/// Every TensorView of a Reader starts at a multiple of this many bytes, whatever the file's
/// alignment.
inline constexpr int64_t kTensorAlign = 32;

struct KeyValue {
  std::string_view key;
  Value value;
};

struct TensorInfo {
  std::string_view name;
  /// Its data is checked to lie inside the file, and starts at a multiple of kTensorAlign.
  TensorView view;
  int64_t offset = 0;  ///< from the start of the data section of its file
  int shard = 0;       ///< which file of a split model
  int n_dims = 1;
};

/// A key that takes the place of the file's, for everything that reads it.
struct KeyOverride {
  std::string key;  ///< ".rope.freq_base": behind the file's general.architecture
  std::variant<int64_t, double, bool, std::string> value;
  std::string flag;              ///< named in errors: "--override-kv"
  bool only_if_missing = false;  ///< what the file says stands
};

struct ReadOptions {
  bool use_mmap = true;    ///< false reads the tensor data into memory
  bool huge_pages = true;  ///< ask for them, for the mapping or the memory
  bool all_shards = true;  ///< a -00001-of-0000N file opens its siblings too
  /// Only keys and tensor records are wanted: data is not looked for (nor need it be there), every
  /// view.data is null.
  bool header_only = false;
  std::vector<KeyOverride> overrides{};  ///< later ones win
};

/// A parsed file (or set of split files). Immutable and safe to share between threads.
class Reader {
 public:
  /// Errors: kNotFound, kIo, kCorrupt, kUnsupported, kOutOfMemory; one line naming file, key or
  /// tensor, and value. Allocates at most the size of the files plus 64 MiB, whatever they say.
  static Result<std::shared_ptr<const Reader>> open(const std::string& path,
                                                    const ReadOptions& options = {});
  /// Parses a whole file held in memory (fuzzing, tests); the bytes must outlive the Reader. One
  /// shard only.
  static Result<std::shared_ptr<const Reader>> parse(std::span<const std::byte> bytes,
                                                     std::string name,
                                                     const ReadOptions& options = {});
  ~Reader();

  const std::string& path() const;
  uint32_t version() const;
  int64_t alignment() const;
  int64_t file_bytes() const;  ///< all shards
  int n_shards() const;
  bool is_mmapped() const;

  std::span<const KeyValue> kvs() const;          ///< of the first shard, in file order
  std::span<const TensorInfo> tensors() const;    ///< in file order, shard after shard
  const Value* find(std::string_view key) const;  ///< nullptr when missing
  const TensorInfo* find_tensor(std::string_view name) const;

  /// Typed access whose errors name file, key and value. The two-argument forms give `fallback`
  /// only when the key is missing; a key of the wrong type is always an error.
  Result<int64_t> get_int(std::string_view key) const;
  Result<int64_t> get_int(std::string_view key, int64_t fallback) const;
  Result<double> get_float(std::string_view key) const;
  Result<double> get_float(std::string_view key, double fallback) const;
  Result<bool> get_bool(std::string_view key, bool fallback) const;
  Result<std::string_view> get_string(std::string_view key) const;
  Result<std::string_view> get_string(std::string_view key, std::string_view fallback) const;

  /// Tells the kernel that a tensor's mapped pages are no longer needed (no effect without mmap).
  void release_pages(const TensorInfo& tensor) const;
  /// The same for bytes [offset, offset + n_bytes) of its data, with the pages at both ends: what
  /// is still wanted of them is read again.
  void release_pages(const TensorInfo& tensor, int64_t offset, int64_t n_bytes) const;
  /// The file that tensors of this shard stand in.
  const std::string& shard_path(int shard) const;

 private:
  Reader();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace infer::gguf
