#pragma once

#include <cstdint>

namespace infer {

/// Every element type that a GGUF file can name, plus nothing else. Values are ours, not the file's
/// ids (`quant_types.h` maps them). Which of these can be computed with is the backends' business.
// clang-format off
enum class DType : uint8_t {
  kF32, kF16, kBF16, kF64, kI8, kI16, kI32, kI64,
  kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ8_1,
  kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kQ8_K,
  kIQ1_S, kIQ1_M, kIQ2_XXS, kIQ2_XS, kIQ2_S, kIQ3_XXS, kIQ3_S, kIQ4_NL, kIQ4_XS,
  kTQ1_0, kTQ2_0, kMXFP4, kNVFP4, kQ1_0, kQ2_0,
  kCount
};
// clang-format on

inline constexpr int kDTypeCount = static_cast<int>(DType::kCount);

}  // namespace infer
