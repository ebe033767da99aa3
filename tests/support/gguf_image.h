#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"

/// A GGUF file as plain data, for tests that make models and spoil them. Serialised by code of its
/// own, so that tests of models do not stand on the project's writer.
namespace infer::test {

// clang-format off
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                               uint64_t, int64_t, double,
                               std::vector<std::string>, std::vector<float>, std::vector<int32_t>,
                               std::vector<uint32_t>, std::vector<int64_t>, std::vector<uint8_t>>;
// clang-format on

struct GgufTensor {
  std::string name;
  DType type = DType::kF32;
  std::vector<int64_t> shape;    ///< GGUF's order: k first
  std::vector<std::byte> bytes;  ///< as long as type and shape ask
};

struct GgufImage {
  std::vector<std::pair<std::string, GgufValue>> kvs;
  std::vector<GgufTensor> tensors;

  /// Replaces the value of a key, or adds it at the end.
  void set(std::string_view key, GgufValue value);
  void erase(std::string_view key);
  const GgufValue* find(std::string_view key) const;
  GgufTensor* find_tensor(std::string_view name);

  std::vector<std::byte> serialize() const;  ///< version 3, alignment 32
  Result<void> write(const std::filesystem::path& path) const;
};

}  // namespace infer::test
