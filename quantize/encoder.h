#pragma once

#include <string_view>

#include "core/base/cpu_features.h"
#include "core/base/result.h"
#include "quantize/encode/table.h"

/// f32 rows to the blocks that GGUF defines. One source for every ISA level, compiled once for
/// each; results are the same bytes at all of them.
namespace infer::quantize {

/// The table for this CPU; `isa` names a level, empty takes the best. Errors: kInvalidArgument for
/// an unknown level, kUnsupported for one the CPU lacks.
Result<EncodeTable> select_encoders(const CpuFeatures& cpu, std::string_view isa);

/// How far a type's blocks reach with the largest scale that f16 holds: beyond, weights would be
/// cut off. Infinite for the types that need no f16.
struct Reach {
  float above = 0.0f, below = 0.0f;  ///< of zero, both >= 0
  bool holds(float x) const { return x <= above && x >= -below; }
};
Reach reach_of(DType type);

}  // namespace infer::quantize
