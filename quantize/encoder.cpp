#include "quantize/encoder.h"

#include <array>
#include <limits>
#include <string>

#include "core/base/error.h"
#include "quantize/encode/levels.h"

namespace infer::quantize {
namespace {

/// One ISA level of this build, best last.
struct Level {
  const char* name;
  bool (*supported)(const CpuFeatures& cpu);
  EncodeTable (*table)();
};

constexpr std::array kLevels {
  Level{"generic", [](const CpuFeatures&) { return true; }, generic::encode_table},
#if defined(INFER_ENCODE_AVX2)
      Level{"avx2", [](const CpuFeatures& c) { return c.avx2 && c.f16c; }, avx2::encode_table},
#endif
#if defined(INFER_ENCODE_AVX512)
      Level{"avx512",
            [](const CpuFeatures& c) {
              return c.avx2 && c.f16c && c.avx512f && c.avx512bw && c.avx512vl && c.avx512dq;
            },
            avx512::encode_table},
#endif
};

constexpr float kMaxHalf = 65504.0f;

/// Scale and minimum times their largest factors; a symmetric block's scale may have either sign.
constexpr Reach symmetric(float levels) { return {kMaxHalf * levels, kMaxHalf * levels}; }
constexpr Reach affine(float levels, float factor) {
  return {kMaxHalf * levels * factor, kMaxHalf * factor};
}

}  // namespace

Reach reach_of(DType type) {
  switch (type) {
    case DType::kF16:
      return {kMaxHalf, kMaxHalf};
    case DType::kQ8_0:
      return symmetric(127.0f);
    case DType::kQ4_0:
      return symmetric(8.0f);
    case DType::kQ5_0:
      return symmetric(16.0f);
    case DType::kQ4_1:
      return affine(15.0f, 1.0f);
    case DType::kQ5_1:
      return affine(31.0f, 1.0f);
    case DType::kQ2_K:
      return affine(3.0f, 15.0f);
    case DType::kQ4_K:
      return affine(15.0f, 63.0f);
    case DType::kQ5_K:
      return affine(31.0f, 63.0f);
    case DType::kQ3_K:
      return symmetric(4.0f * 32.0f);
    case DType::kQ6_K:
      return symmetric(32.0f * 128.0f);
    case DType::kIQ4_NL:
      return symmetric(127.0f);
    default:
      return {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
  }
}

Result<EncodeTable> select_encoders(const CpuFeatures& cpu, std::string_view isa) {
  const Level* best = nullptr;
  std::string names;
  for (const Level& level : kLevels) {
    const bool wanted = isa.empty() || isa == level.name;
    if (wanted && level.supported(cpu)) best = &level;
    if (wanted && !isa.empty() && best == nullptr)
      return make_error(ErrorCode::kUnsupported, "--isa {}: this CPU lacks it", isa);
    names += names.empty() ? level.name : std::string(", ") + level.name;
  }
  if (best == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "--isa '{}' is unknown: one of {}", isa, names);
  }
  return best->table();
}

}  // namespace infer::quantize
