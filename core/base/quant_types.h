#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/base/dtype.h"

namespace infer {

/// One row a type: how a GGUF names it and how many bytes a block of elements takes.
struct QuantType {
  DType type;
  std::string_view name;  ///< lower case, as users write it: "q4_k"
  uint32_t gguf_id;
  int32_t block_len;  ///< elements in a block along k
  int32_t block_bytes;
};

/// All types, indexed by DType.
std::span<const QuantType> quant_types();
const QuantType& quant_type(DType type);
/// Lookup by the id in a GGUF tensor record; nullopt for an id that no GGUF version names.
std::optional<DType> dtype_from_gguf_id(uint32_t id);
/// A type whose id was once named and then withdrawn ("q4_2", "q4_0_4_4"); empty when it never was.
std::string_view removed_type_name(uint32_t id);
/// Lookup by name, any case; nullopt for an unknown name.
std::optional<DType> dtype_from_name(std::string_view name);

inline std::string_view name_of(DType type) { return quant_type(type).name; }
/// Bytes of a row of n_elem; nullopt when n_elem is negative, no multiple of the block length, or
/// the product wraps.
std::optional<int64_t> row_bytes(DType type, int64_t n_elem);

}  // namespace infer
