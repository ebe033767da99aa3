#pragma once

#include "quantize/encode/table.h"

/// The table of each ISA level (encode/table.cpp, compiled once for each).
namespace infer::quantize {

namespace generic {
EncodeTable encode_table();
}
namespace avx2 {
EncodeTable encode_table();
}
namespace avx512 {
EncodeTable encode_table();
}

}  // namespace infer::quantize
