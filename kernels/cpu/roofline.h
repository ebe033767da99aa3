#pragma once

#include <span>

#include "core/base/cpu_features.h"
#include "kernels/cpu/roofline_loops.h"

/// Loops that show what a CPU can reach at most: bytes read, f32 multiply-adds, and 8-bit
/// multiply-adds by each of the instruction recipes that quantised kernels are built from. Timing
/// them is backends/cpu/bench's business. Source: Williams, Waterman and Patterson, "Roofline: an
/// insightful visual performance model for multicore architectures" (CACM 52(4), 2009).
namespace infer::kern {

/// What one ISA level has.
struct RooflineLevel {
  const char* isa = "";
  const char* needs = "";  ///< CPU features by name, for the message when one is missing
  bool (*supported)(const CpuFeatures& cpu) = nullptr;
  uint64_t (*read)(const std::byte* data, int64_t n_bytes) = nullptr;  ///< nullptr: none of its own
  std::span<const RooflineLoop> loops;
};

/// All levels of this build, best last.
std::span<const RooflineLevel> roofline_levels();

}  // namespace infer::kern
