#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/base/cpu_features.h"
#include "core/base/result.h"
#include "kernels/cpu/table.h"

namespace infer::kern {

/// ISA levels this build carries, best last: "generic", "avx2", "avx512".
std::vector<std::string_view> built_isa_levels();

/// The table for this CPU. `isa` names a level (a larger one than the CPU has is an error, never a
/// silent fallback); empty takes the best one, avx512 excepted, which must be asked for. Errors:
/// kInvalidArgument for an unknown level, kUnsupported for one the CPU lacks.
Result<CpuKernels> select_kernels(const CpuFeatures& cpu, std::string_view isa);

}  // namespace infer::kern
