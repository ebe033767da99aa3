#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/base/dtype.h"

namespace infer::test {

/// Plain reference encoders: every block is valid and close to its input, none is tuned. The legacy
/// types use the rule of the published formats (scale from the extreme value), so their bytes are
/// the usual ones. Needs: `can_encode(type)`; x.size() a multiple of the type's block length.
std::vector<std::byte> encode(DType type, std::span<const float> x);
bool can_encode(DType type);

}  // namespace infer::test
