#include <array>

#include "core/model/arch.h"
#include "core/model/archs/archs.h"

namespace infer::model {
namespace {

constexpr std::array<const ArchDef*, 12> kArchs = {&kBloom,   &kGemma2,   &kGemma3, &kGpt2,
                                                   &kGptNeox, &kLlama,    &kMpt,    &kPhi3,
                                                   &kQwen2,   &kQwen2Moe, &kQwen3,  &kQwen3Moe};

}  // namespace

std::span<const ArchDef* const> arch_registry() { return kArchs; }

const ArchDef* find_arch(std::string_view name) {
  for (const ArchDef* arch : kArchs) {
    if (arch->name == name) return arch;
  }
  return nullptr;
}

}  // namespace infer::model
