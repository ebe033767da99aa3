#pragma once

#include "core/model/arch.h"

/// One file an architecture, one line here and one in registry.cpp.
namespace infer::model {

extern const ArchDef kGemma3;
extern const ArchDef kLlama;

}  // namespace infer::model
