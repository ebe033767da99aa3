#include "kernels/cpu/dispatch.h"

#include <initializer_list>
#include <string>

#include "core/base/error.h"
#include "kernels/cpu/avx2/install.h"
#include "kernels/cpu/avx512/install.h"
#include "kernels/cpu/generic/install.h"

namespace infer::kern {
namespace {

/// One ISA level of this build. A level includes those before it: its install functions overwrite
/// theirs.
struct IsaLevel {
  const char* name;
  std::string (*lacking)(const CpuFeatures& cpu);  ///< features that are missing, or ""
  void (*install)(CpuKernels& table);
};

struct Feature {
  bool present;
  const char* name;
};
std::string absent(std::initializer_list<Feature> features) {
  std::string text;
  for (const Feature& f : features) {
    if (f.present) continue;
    if (!text.empty()) text += ", ";
    text += f.name;
  }
  return text;
}

std::string lacking_nothing(const CpuFeatures& /*cpu*/) { return {}; }
void install_generic(CpuKernels& t) {
  generic::install_linear(t);
  generic::install_nonlinear(t);
}

#if defined(INFER_KERNELS_AVX2)
std::string lacking_avx2(const CpuFeatures& c) {
  return absent({{c.avx2, "avx2"}, {c.fma, "fma"}, {c.f16c, "f16c"}});
}
void install_avx2(CpuKernels& t) {
  avx2::install_decode(t);
  avx2::install_linear(t);
  avx2::install_nonlinear(t);
}
#endif

#if defined(INFER_KERNELS_AVX512)
std::string lacking_avx512(const CpuFeatures& c) {
  return absent({{c.avx2, "avx2"},
                 {c.fma, "fma"},
                 {c.f16c, "f16c"},
                 {c.avx512f, "avx512f"},
                 {c.avx512bw, "avx512bw"},
                 {c.avx512dq, "avx512dq"},
                 {c.avx512vl, "avx512vl"},
                 {c.avx512_vnni, "avx512_vnni"}});
}
void install_avx512(CpuKernels& t) {
  avx512::install_attention(t);
  avx512::install_linear(t);
}
#endif

constexpr IsaLevel kLevels[] = {
    {"generic", lacking_nothing, install_generic},
#if defined(INFER_KERNELS_AVX2)
    {"avx2", lacking_avx2, install_avx2},
#endif
#if defined(INFER_KERNELS_AVX512)
    {"avx512", lacking_avx512, install_avx512},
#endif
};

std::string join_levels(const CpuFeatures* cpu) {
  std::string text;
  for (const IsaLevel& l : kLevels) {
    if (cpu != nullptr && !l.lacking(*cpu).empty()) continue;
    if (!text.empty()) text += ", ";
    text += l.name;
  }
  return text;
}

}  // namespace

std::vector<std::string_view> built_isa_levels() {
  std::vector<std::string_view> names;
  for (const IsaLevel& l : kLevels) names.emplace_back(l.name);
  return names;
}

Result<CpuKernels> select_kernels(const CpuFeatures& cpu, std::string_view isa) {
  const IsaLevel* wanted = nullptr;
  for (const IsaLevel& l : kLevels) {
    const bool taken = isa.empty() ? l.lacking(cpu).empty() : isa == l.name;
    if (taken) wanted = &l;
  }
  if (wanted == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "--isa {}: unknown level (this build has {})",
                      isa, join_levels(nullptr));
  }
  if (const std::string lacking = wanted->lacking(cpu); !lacking.empty()) {
    return make_error(ErrorCode::kUnsupported, "--isa {}: this CPU lacks {} (it has {})", isa,
                      lacking, join_levels(&cpu));
  }
  CpuKernels table;
  for (const IsaLevel* l = kLevels; l <= wanted; ++l) {
    if (l->lacking(cpu).empty()) l->install(table);
  }
  table.isa = wanted->name;
  return table;
}

}  // namespace infer::kern
