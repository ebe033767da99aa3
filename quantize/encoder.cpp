#include "quantize/encoder.h"

#include <array>
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

}  // namespace

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
