#include <array>

#include "core/model/arch.h"
#include "core/model/archs/archs.h"

namespace infer::model {
namespace {

constexpr std::array<const ArchDef*, 2> kArchs = {&kLlama, &kGemma3};

}  // namespace

std::span<const ArchDef* const> arch_registry() { return kArchs; }

const ArchDef* find_arch(std::string_view name) {
  for (const ArchDef* arch : kArchs) {
    if (arch->name == name) return arch;
  }
  return nullptr;
}

}  // namespace infer::model
