#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infer::test {

/// Bytes of a .safetensors file made by hand, right or wrong.
struct SafetensorsBuilder {
  std::string header;           ///< JSON; add() extends it
  std::vector<std::byte> data;  ///< what the offsets count in

  /// A good entry, its data at the end.
  SafetensorsBuilder& add(std::string_view name, std::string_view dtype,
                          const std::vector<int64_t>& shape, const std::vector<std::byte>& bytes);
  /// The file; `n_header` in place of the right length.
  std::vector<std::byte> bytes() const { return bytes(json().size()); }
  std::vector<std::byte> bytes(uint64_t n_header) const;
  std::string json() const { return "{" + header + "}"; }
};

}  // namespace infer::test
