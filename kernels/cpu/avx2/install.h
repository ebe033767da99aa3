#pragma once

namespace infer::kern {
struct CpuKernels;
}

/// Entries that AVX2 + FMA + F16C do better; each function overwrites only those of its own
/// subject.
namespace infer::kern::avx2 {

void install_decode(CpuKernels& table);
void install_linear(CpuKernels& table);
void install_nonlinear(CpuKernels& table);

}  // namespace infer::kern::avx2
