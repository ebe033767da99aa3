#pragma once

#include "core/model/arch.h"

/// One file an architecture, one line here and one in registry.cpp.
namespace infer::model {

extern const ArchDef kBloom;
extern const ArchDef kGemma2;
extern const ArchDef kGemma3;
extern const ArchDef kGpt2;
extern const ArchDef kGptNeox;
extern const ArchDef kLlama;
extern const ArchDef kMpt;
extern const ArchDef kPhi3;
extern const ArchDef kQwen2;
extern const ArchDef kQwen2Moe;
extern const ArchDef kQwen3;
extern const ArchDef kQwen3Moe;

}  // namespace infer::model
