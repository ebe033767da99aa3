#include "kernels/cpu/dispatch.h"

#include <string>

#include "core/base/error.h"
#include "kernels/cpu/avx2/install.h"
#include "kernels/cpu/generic/install.h"

namespace infer::kern {
namespace {

/// One ISA level of this build. A level includes those before it: its install functions overwrite
/// theirs.
struct IsaLevel {
  const char* name;
  bool (*supported)(const CpuFeatures& cpu);
  void (*install)(CpuKernels& table);
};

void install_generic(CpuKernels& t) {
  generic::install_linear(t);
  generic::install_nonlinear(t);
}

#if defined(INFER_KERNELS_AVX2)
void install_avx2(CpuKernels& t) {
  avx2::install_linear(t);
  avx2::install_nonlinear(t);
}
#endif

constexpr IsaLevel kLevels[] = {
    {"generic", [](const CpuFeatures&) { return true; }, install_generic},
#if defined(INFER_KERNELS_AVX2)
    {"avx2", [](const CpuFeatures& c) { return c.avx2 && c.fma && c.f16c; }, install_avx2},
#endif
};

std::string join_levels(const CpuFeatures* cpu) {
  std::string text;
  for (const IsaLevel& l : kLevels) {
    if (cpu != nullptr && !l.supported(*cpu)) continue;
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
    if (isa.empty() ? l.supported(cpu) : isa == l.name) wanted = &l;
  }
  if (wanted == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "--isa {}: unknown level (this build has {})",
                      isa, join_levels(nullptr));
  }
  if (!wanted->supported(cpu)) {
    return make_error(ErrorCode::kUnsupported, "--isa {}: this CPU lacks it (it has {})", isa,
                      join_levels(&cpu));
  }
  CpuKernels table;
  for (const IsaLevel* l = kLevels; l <= wanted; ++l) {
    if (l->supported(cpu)) l->install(table);
  }
  table.isa = wanted->name;
  return table;
}

}  // namespace infer::kern
