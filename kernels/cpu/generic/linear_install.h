#pragma once

#include "kernels/cpu/table.h"

namespace infer::kern::generic {

void install_linear_decoded(
    CpuKernels& table);  ///< f32 activations: all types in kPrecise, float types in both modes
void install_linear_quant(CpuKernels& table);  ///< 8-bit activations: kFast of the quantised types

}  // namespace infer::kern::generic
