#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

/// Reading one .safetensors file: u64 header length, JSON header, data. Source: the safetensors
/// format description.
namespace infer::test {

enum class SafeType : uint8_t { kF32, kF16, kBF16, kI32, kI64 };

struct SafeTensor {
  std::string name;
  SafeType type = SafeType::kF32;
  std::vector<int64_t> shape;       ///< outermost first
  std::span<const std::byte> data;  ///< inside the file's bytes

  int64_t n_elem() const;
};

class SafeTensors {
 public:
  /// Errors: kIo, kCorrupt, kUnsupported (a dtype not in SafeType); one line naming file and
  /// tensor.
  static Result<SafeTensors> open(const std::filesystem::path& path);
  SafeTensors(SafeTensors&&) = default;
  SafeTensors& operator=(SafeTensors&&) = default;

  std::span<const SafeTensor> tensors() const { return tensors_; }  ///< in the order of the data
  const SafeTensor* find(std::string_view name) const;
  /// Values widened exactly. Errors: kNotFound, kUnsupported for a tensor of the other kind.
  Result<std::vector<float>> floats(std::string_view name) const;
  Result<std::vector<int64_t>> ints(std::string_view name) const;

 private:
  SafeTensors() = default;
  std::string path_;
  std::vector<std::byte> bytes_;  // what the tensors point into
  std::vector<SafeTensor> tensors_;
};

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path);

}  // namespace infer::test
