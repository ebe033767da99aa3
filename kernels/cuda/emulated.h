#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

/// What device.cuh, ptx.cuh and launch.cuh call when a kernel is compiled as plain C++: declared
/// here, defined by tests/cuda_on_cpu. Nothing in a build for a GPU includes this header.
namespace infer::cuda::emulated {

/// A collective is known by the place in the kernel that called it.
using Site = std::source_location;

struct BlockIds {
  dim3 block_idx, block_dim, grid_dim;
};

struct LaneIds {
  dim3 thread_idx;
  const BlockIds* block = nullptr;
};

/// The lane that runs on this OS thread. No constructor: the compiler reads it without a wrapper.
extern constinit thread_local const LaneIds* this_lane;

/// 75, 80, 86, ...: set with the emulator's options.
int architecture() noexcept;

/// Stops the block; the launch fails with `what`, the kernel, the block, the lane and the place.
[[noreturn]] void fail(const char* what, Site site);

/// Whether this run does without the barrier or wait at `here` (tests/cuda_on_cpu/mutants.py).
extern bool any_left_out;
bool is_left_out(Site here) noexcept;
inline bool left_out(Site here) { return any_left_out && is_left_out(here); }

void* shared_memory(size_t bytes, Site site);
void sync_threads(Site site);
void sync_warp(uint32_t mask, Site site);

enum class Shuffle { kIndex, kUp, kDown, kXor };
/// `operand` is the source lane, distance or lane mask; `width` a power of two up to 32.
uint64_t shuffle(Shuffle kind, uint64_t bits, uint32_t operand, uint32_t width, uint32_t mask,
                 Site site);
uint32_t ballot(bool predicate, uint32_t mask, Site site);

enum class Reduce { kSum, kMax, kMin };
/// The bits of a butterfly of shuffles (distances 16, 8, 4, 2, 1) over a full warp, in one
/// collective.
float warp_reduce(Reduce kind, float value, Site site);
int warp_reduce(Reduce kind, int value, Site site);

enum class Mma { kF16K8, kF16K16, kBf16K16, kS8M8K16, kS8K16, kS8K32 };
/// One mma.sync by the full warp: d += a * b on fragments as the PTX ISA lays them out.
void mma(Mma kind, void* d, const uint32_t* a, const uint32_t* b, Site site);
/// `n_matrix` is 1, 2 or 4; out has as many registers.
void ldmatrix(int n_matrix, bool transposed, const void* row, uint32_t* out, Site site);

/// The last `bytes - source_bytes` bytes become zeros.
void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site);
void cp_async_commit() noexcept;
void cp_async_wait(int n_pending) noexcept;

/// Fails unless `address` is a multiple of `alignment`, as the hardware does.
inline void check_aligned(const void* address, size_t alignment, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0) fail("misaligned address", site);
}

/// A kernel with its arguments, the way a stream keeps it until it runs.
struct Launch {
  const void* kernel;  ///< the function, as cudaFuncSetAttribute knows it
  void (*call)(const void* kernel, const void* arguments);
  const void* arguments;  ///< trivially copyable, copied by launch()
  size_t arguments_bytes;
  dim3 grid, block;
  size_t shared_bytes;
};
cudaError_t launch(const Launch& what, cudaStream_t stream, Site site);

}  // namespace infer::cuda::emulated
