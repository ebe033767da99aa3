#pragma once

#include <cstdint>

/// What mutants.py tells a test program through its environment:
///   INFER_CUDA_LEFT_OUT=gemm_q8.cuh:255   the barrier or wait that the kernels do without
///   INFER_CUDA_SEED=3                     added to every seed
/// A program that left something out says at its end how often, on stderr.
namespace infer::cuda::emulated {

uint64_t seed_offset() noexcept;

}  // namespace infer::cuda::emulated
