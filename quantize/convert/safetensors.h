#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

/// Reading .safetensors files: u64 header length, JSON header, data. Source: the format description
/// at https://github.com/huggingface/safetensors.
namespace infer::quantize {

// clang-format off
enum class SafeType : uint8_t {
  kBool, kU8, kI8, kF8E5M2, kF8E4M3, kI16, kU16, kF16, kBF16, kI32, kU32, kF32, kI64, kU64, kF64
};
// clang-format on
std::string_view name_of(SafeType type);  ///< "F8_E4M3"
int64_t bytes_of(SafeType type);          ///< of one element
inline bool is_float8(SafeType type) {
  return type == SafeType::kF8E5M2 || type == SafeType::kF8E4M3;
}

struct SafeTensor {
  std::string name;
  SafeType type = SafeType::kF32;
  std::vector<int64_t> shape;       ///< outermost first, at most 8; the size in bytes fits int64_t
  std::span<const std::byte> data;  ///< inside the file, any alignment
  int file = 0;                     ///< index of the file

  int64_t n_elem() const { return static_cast<int64_t>(data.size()) / bytes_of(type); }
  int64_t n_k() const { return shape.empty() ? 1 : shape.back(); }  ///< elements of a row
  int64_t n_row() const { return n_k() == 0 ? 0 : n_elem() / n_k(); }
};

/// One file, or the files of a folder together. Mapped: nothing is read before it is asked for.
/// Errors: kNotFound, kIo, kCorrupt, kUnsupported (a dtype), one line naming file and tensor.
class SafeTensors {
 public:
  static Result<SafeTensors> open_file(const std::string& path);
  /// `model.safetensors.index.json` and the files it names, or `model.safetensors`, or all files
  /// `model-*.safetensors`. A folder with pickle files only is refused (kUnsupported): these are
  /// programs.
  static Result<SafeTensors> open_folder(const std::string& folder);
  /// A whole file in memory, which must outlive the result.
  static Result<SafeTensors> parse(std::span<const std::byte> bytes, const std::string& name);

  SafeTensors(SafeTensors&&) noexcept;
  SafeTensors& operator=(SafeTensors&&) noexcept;
  ~SafeTensors();

  std::span<const SafeTensor> tensors() const;  ///< file after file, in the order of the data
  const SafeTensor* find(std::string_view name) const;
  const std::string& path_of(const SafeTensor& t) const;
  /// Gives back the whole pages inside a part of a tensor's data.
  void release(const SafeTensor& t, std::span<const std::byte> part) const;

 private:
  struct Impl;
  explicit SafeTensors(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Elements [first, first + out.size()) widened to f32, exactly. Needs: inside the tensor. Errors:
/// kUnsupported for types that are no float of 32 bits or less; `where` is named.
Result<void> read_floats(const SafeTensor& t, int64_t first, std::span<float> out,
                         const std::string& where);
/// The same for I32 and I64.
Result<void> read_ints(const SafeTensor& t, int64_t first, std::span<int64_t> out,
                       const std::string& where);
/// Value of an 8-bit float. Source: FP8 Formats for Deep Learning, arXiv:2209.05433, table 1.
float f32_from_e4m3(uint8_t bits);
float f32_from_e5m2(uint8_t bits);

}  // namespace infer::quantize
