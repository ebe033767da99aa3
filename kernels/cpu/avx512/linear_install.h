#pragma once

#include "kernels/cpu/table.h"

namespace infer::kern::avx512 {

void install_linear_float(CpuKernels& table);   ///< F32, F16, BF16 in both modes
void install_linear_legacy(CpuKernels& table);  ///< kFast: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL
void install_linear_k(CpuKernels& table);       ///< kFast: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS

}  // namespace infer::kern::avx512
