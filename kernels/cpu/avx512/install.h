#pragma once

namespace infer::kern {
struct CpuKernels;
}

/// Entries that AVX-512 (F, BW, DQ, VL, VNNI) does better than AVX2, whose table is installed
/// first.
namespace infer::kern::avx512 {

void install_attention(CpuKernels& table);
void install_linear(CpuKernels& table);

}  // namespace infer::kern::avx512
