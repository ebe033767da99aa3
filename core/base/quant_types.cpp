#include "core/base/quant_types.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/base/check.h"
#include "core/base/checked.h"

namespace infer {
namespace {

// Ids and sizes agree with ggml.h / ggml-common.h of llama.cpp and with gguf-py 0.19, but for q8_1:
// gguf-py still has the 40 bytes of its first form (two f32), the block of ggml has two f16 and 36
// bytes. Ids are never given twice, so new ones go at the end; ids above these belong to forks and
// mean different things in each.
constexpr std::array kTypes = {
    QuantType{DType::kF32, "f32", 0, 1, 4},
    QuantType{DType::kF16, "f16", 1, 1, 2},
    QuantType{DType::kBF16, "bf16", 30, 1, 2},
    QuantType{DType::kF64, "f64", 28, 1, 8},
    QuantType{DType::kI8, "i8", 24, 1, 1},
    QuantType{DType::kI16, "i16", 25, 1, 2},
    QuantType{DType::kI32, "i32", 26, 1, 4},
    QuantType{DType::kI64, "i64", 27, 1, 8},
    QuantType{DType::kQ4_0, "q4_0", 2, 32, 18},
    QuantType{DType::kQ4_1, "q4_1", 3, 32, 20},
    QuantType{DType::kQ5_0, "q5_0", 6, 32, 22},
    QuantType{DType::kQ5_1, "q5_1", 7, 32, 24},
    QuantType{DType::kQ8_0, "q8_0", 8, 32, 34},
    QuantType{DType::kQ8_1, "q8_1", 9, 32, 36},
    QuantType{DType::kQ2_K, "q2_k", 10, 256, 84},
    QuantType{DType::kQ3_K, "q3_k", 11, 256, 110},
    QuantType{DType::kQ4_K, "q4_k", 12, 256, 144},
    QuantType{DType::kQ5_K, "q5_k", 13, 256, 176},
    QuantType{DType::kQ6_K, "q6_k", 14, 256, 210},
    QuantType{DType::kQ8_K, "q8_k", 15, 256, 292},
    QuantType{DType::kIQ1_S, "iq1_s", 19, 256, 50},
    QuantType{DType::kIQ1_M, "iq1_m", 29, 256, 56},
    QuantType{DType::kIQ2_XXS, "iq2_xxs", 16, 256, 66},
    QuantType{DType::kIQ2_XS, "iq2_xs", 17, 256, 74},
    QuantType{DType::kIQ2_S, "iq2_s", 22, 256, 82},
    QuantType{DType::kIQ3_XXS, "iq3_xxs", 18, 256, 98},
    QuantType{DType::kIQ3_S, "iq3_s", 21, 256, 110},
    QuantType{DType::kIQ4_NL, "iq4_nl", 20, 32, 18},
    QuantType{DType::kIQ4_XS, "iq4_xs", 23, 256, 136},
    QuantType{DType::kTQ1_0, "tq1_0", 34, 256, 54},
    QuantType{DType::kTQ2_0, "tq2_0", 35, 256, 66},
    QuantType{DType::kMXFP4, "mxfp4", 39, 32, 17},
    QuantType{DType::kNVFP4, "nvfp4", 40, 64, 36},
    QuantType{DType::kQ1_0, "q1_0", 41, 128, 18},
    QuantType{DType::kQ2_0, "q2_0", 42, 64, 18},
};

constexpr bool indexed_by_dtype() {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (static_cast<size_t>(kTypes[i].type) != i) return false;
  }
  return kTypes.size() == static_cast<size_t>(kDTypeCount);
}
static_assert(indexed_by_dtype(), "one row a DType, in its order");

struct RemovedType {
  uint32_t gguf_id;
  std::string_view name;
};
constexpr std::array kRemoved = {
    RemovedType{4, "q4_2"},        RemovedType{5, "q4_3"},        RemovedType{31, "q4_0_4_4"},
    RemovedType{32, "q4_0_4_8"},   RemovedType{33, "q4_0_8_8"},   RemovedType{36, "iq4_nl_4_4"},
    RemovedType{37, "iq4_nl_4_8"}, RemovedType{38, "iq4_nl_8_8"},
};

}  // namespace

std::span<const QuantType> quant_types() { return kTypes; }

const QuantType& quant_type(DType type) {
  INFER_CHECK(type < DType::kCount, "dtype {}", static_cast<int>(type));
  return kTypes[static_cast<size_t>(type)];
}

std::optional<DType> dtype_from_gguf_id(uint32_t id) {
  for (const QuantType& t : kTypes) {
    if (t.gguf_id == id) return t.type;
  }
  return std::nullopt;
}

std::string_view removed_type_name(uint32_t id) {
  for (const RemovedType& t : kRemoved) {
    if (t.gguf_id == id) return t.name;
  }
  return {};
}

std::optional<DType> dtype_from_name(std::string_view name) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  for (const QuantType& t : kTypes) {
    if (std::equal(name.begin(), name.end(), t.name.begin(), t.name.end(), same)) return t.type;
  }
  return std::nullopt;
}

std::optional<int64_t> row_bytes(DType type, int64_t n_elem) {
  const QuantType& t = quant_type(type);
  if (n_elem < 0 || n_elem % t.block_len != 0) return std::nullopt;
  return checked_mul<int64_t>(n_elem / t.block_len, t.block_bytes);
}

}  // namespace infer
