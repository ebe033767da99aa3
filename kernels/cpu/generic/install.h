#pragma once

namespace infer::kern {
struct CpuKernels;
}

/// Entries of the portable level: complete, scalar, the oracle of every faster one.
namespace infer::kern::generic {

void install_linear(CpuKernels& table);     ///< linear[][] and decode_row[]
void install_nonlinear(CpuKernels& table);  ///< everything else

}  // namespace infer::kern::generic
