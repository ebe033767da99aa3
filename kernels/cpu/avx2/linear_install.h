#pragma once

#include "kernels/cpu/table.h"

namespace infer::kern::avx2 {

void install_linear_float(CpuKernels& table);   ///< F32, F16, BF16 in both modes
void install_linear_legacy(CpuKernels& table);  ///< Q4_0, Q4_1, Q5_0, Q5_1 in both modes
void install_linear_q8_0(CpuKernels& table);    ///< Q8_0 in both modes
void install_linear_k(CpuKernels& table);       ///< Q4_K, Q5_K, Q6_K in both modes
void install_linear_k_low(CpuKernels& table);   ///< Q2_K, Q3_K in both modes
void install_linear_iq4(CpuKernels& table);     ///< IQ4_NL, IQ4_XS in both modes

}  // namespace infer::kern::avx2
