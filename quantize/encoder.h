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

}  // namespace infer::quantize
