#pragma once

#include <string_view>

#include "core/base/result.h"
#include "kernels/cpu/table.h"
#include "quantize/encoder.h"

namespace infer::quantize {

/// How rows are decoded and encoded on this CPU.
struct Codec {
  kern::CpuKernels kernels;
  EncodeTable encoders;
};

/// `isa` names a level; empty takes the best. Errors: kInvalidArgument for an unknown level,
/// kUnsupported for one the CPU lacks.
Result<Codec> select_codec(std::string_view isa);

}  // namespace infer::quantize
