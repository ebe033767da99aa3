#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#if !defined(__CUDACC__)
#include "kernels/cuda/emulated.h"
#endif

/// What kernels are written against: who am I, shared memory, barriers, shuffles, votes, atomics.
/// Each function has two bodies: the GPU's own, and a call into the emulator of tests/cuda_on_cpu
/// where a kernel is compiled as plain C++. Instructions that only PTX has are in ptx.cuh, launch()
/// in launch.cuh.
///
/// A kernel uses no __shared__, __constant__, threadIdx or <<<>>>; its parameters are
/// `const __grid_constant__`; all lanes of a mask call a collective from the same place.
///
/// nvcc contracts a * b + c to one rounding as it likes: error bounds count every rounding, so they
/// hold either way; where lanes have to get the same bits, sums are add_rn's.
#if defined(__CUDACC__)
#define INFER_DEVICE __device__ __forceinline__
#else
#define INFER_DEVICE inline
#undef __shared__
#define __shared__ use_shared_storage_of_device_cuh
#undef __constant__
#define __constant__ pass_constants_as_kernel_parameters
#if !defined(__launch_bounds__)
#define __launch_bounds__(...)
#endif
#endif

namespace infer::cuda {

inline constexpr int kWarp = 32;
inline constexpr uint32_t kFullMask = 0xffffffffu;
/// Shared memory a block may have on every architecture, after cudaFuncSetAttribute: sm_75's.
inline constexpr int kMaxSharedBytes = 64 * 1024;

#if defined(__CUDACC__)
/// Where a collective was called: nothing on a GPU.
struct Site {
  __host__ __device__ static constexpr Site current() { return {}; }
};
#else
using Site = emulated::Site;
#endif

/// 75, 80, ...: a constant on a GPU, an option of the emulator. May pick an instruction, never an
/// algorithm.
#if defined(__CUDA_ARCH__)
INFER_DEVICE constexpr int architecture() { return __CUDA_ARCH__ / 10; }
#elif defined(__CUDACC__)
INFER_DEVICE constexpr int architecture() { return 0; }
#else
INFER_DEVICE int architecture() { return emulated::architecture(); }
#endif

// --- Who am I

#if defined(__CUDACC__)
INFER_DEVICE uint3 thread_idx() { return threadIdx; }
INFER_DEVICE uint3 block_idx() { return blockIdx; }
INFER_DEVICE dim3 block_dim() { return blockDim; }
INFER_DEVICE dim3 grid_dim() { return gridDim; }
#else
INFER_DEVICE uint3 thread_idx() { return emulated::this_lane->thread_idx; }
INFER_DEVICE uint3 block_idx() { return emulated::this_lane->block->block_idx; }
INFER_DEVICE dim3 block_dim() { return emulated::this_lane->block->block_dim; }
INFER_DEVICE dim3 grid_dim() { return emulated::this_lane->block->grid_dim; }
#endif

/// Lane and warp of a block whose x extent is a multiple of 32: a warp is 32 neighbours along x.
INFER_DEVICE int lane_id() { return static_cast<int>(thread_idx().x % kWarp); }
INFER_DEVICE int warp_id() { return static_cast<int>(thread_idx().x / kWarp); }

// --- Shared memory

/// The block's dynamic shared memory seen as `Storage`, which launch() was given at least the size
/// of. It holds no defined value at first; every call returns the same object.
template <class Storage>
INFER_DEVICE Storage& shared([[maybe_unused]] Site site = Site::current()) {
  static_assert(std::is_trivially_default_constructible_v<Storage> &&
                std::is_trivially_destructible_v<Storage>);
  static_assert(sizeof(Storage) <= kMaxSharedBytes && alignof(Storage) <= 128);
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char infer_shared_bytes[];
  return *reinterpret_cast<Storage*>(infer_shared_bytes);
#else
  return *static_cast<Storage*>(emulated::shared_memory(sizeof(Storage), site));
#endif
}

// --- Barriers

/// All threads of the block arrive here; writes before are seen after. `here` is always the line of
/// the call, and never passed on: mutants.py leaves barriers out by it.
INFER_DEVICE void sync_threads([[maybe_unused]] Site site = Site::current(),
                               [[maybe_unused]] Site here = Site::current()) {
#if defined(__CUDACC__)
  __syncthreads();
#else
  if (!emulated::left_out(here)) emulated::sync_threads(site);
#endif
}

/// The same among the lanes of `mask`, the caller's included.
INFER_DEVICE void sync_warp(uint32_t mask = kFullMask, [[maybe_unused]] Site site = Site::current(),
                            [[maybe_unused]] Site here = Site::current()) {
#if defined(__CUDACC__)
  __syncwarp(mask);
#else
  if (!emulated::left_out(here)) emulated::sync_warp(mask, site);
#endif
}

/// Writes before are seen by the whole device before writes after.
INFER_DEVICE void thread_fence() {
#if defined(__CUDACC__)
  __threadfence();
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

// --- Shuffles and votes

// T is a type of 4 or 8 bytes that __shfl_sync takes. `width` is a power of two: the warp is cut
// into groups of so many lanes, and a lane outside the group reads itself. A lane read from must be
// in `mask`.

#if defined(__CUDACC__)
template <class T>
INFER_DEVICE T shfl(T v, int lane, int width = kWarp, uint32_t mask = kFullMask, Site = {}) {
  return __shfl_sync(mask, v, lane, width);
}
template <class T>
INFER_DEVICE T shfl_up(T v, uint32_t delta, int width = kWarp, uint32_t mask = kFullMask,
                       Site = {}) {
  return __shfl_up_sync(mask, v, delta, width);
}
template <class T>
INFER_DEVICE T shfl_down(T v, uint32_t delta, int width = kWarp, uint32_t mask = kFullMask,
                         Site = {}) {
  return __shfl_down_sync(mask, v, delta, width);
}
template <class T>
INFER_DEVICE T shfl_xor(T v, int lane_mask, int width = kWarp, uint32_t mask = kFullMask,
                        Site = {}) {
  return __shfl_xor_sync(mask, v, lane_mask, width);
}
INFER_DEVICE uint32_t warp_ballot(bool p, uint32_t mask = kFullMask, Site = {}) {
  return __ballot_sync(mask, p);
}
INFER_DEVICE bool warp_any(bool p, uint32_t mask = kFullMask, Site = {}) {
  return __any_sync(mask, p);
}
INFER_DEVICE bool warp_all(bool p, uint32_t mask = kFullMask, Site = {}) {
  return __all_sync(mask, p);
}
#else
namespace detail {
template <class T>
T shuffle(emulated::Shuffle kind, T v, uint32_t operand, int width, uint32_t mask, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof(T));
  bits = emulated::shuffle(kind, bits, operand, static_cast<uint32_t>(width), mask, site);
  std::memcpy(&v, &bits, sizeof(T));
  return v;
}
}  // namespace detail

template <class T>
T shfl(T v, int lane, int width = kWarp, uint32_t mask = kFullMask, Site site = Site::current()) {
  return detail::shuffle(emulated::Shuffle::kIndex, v, static_cast<uint32_t>(lane), width, mask,
                         site);
}
template <class T>
T shfl_up(T v, uint32_t delta, int width = kWarp, uint32_t mask = kFullMask,
          Site site = Site::current()) {
  return detail::shuffle(emulated::Shuffle::kUp, v, delta, width, mask, site);
}
template <class T>
T shfl_down(T v, uint32_t delta, int width = kWarp, uint32_t mask = kFullMask,
            Site site = Site::current()) {
  return detail::shuffle(emulated::Shuffle::kDown, v, delta, width, mask, site);
}
template <class T>
T shfl_xor(T v, int lane_mask, int width = kWarp, uint32_t mask = kFullMask,
           Site site = Site::current()) {
  return detail::shuffle(emulated::Shuffle::kXor, v, static_cast<uint32_t>(lane_mask), width, mask,
                         site);
}
inline uint32_t warp_ballot(bool p, uint32_t mask = kFullMask, Site site = Site::current()) {
  return emulated::ballot(p, mask, site);
}
inline bool warp_any(bool p, uint32_t mask = kFullMask, Site site = Site::current()) {
  return emulated::ballot(p, mask, site) != 0;
}
inline bool warp_all(bool p, uint32_t mask = kFullMask, Site site = Site::current()) {
  return emulated::ballot(p, mask, site) == mask;
}
#endif

/// How many bits are set: of a ballot, the lanes that said yes.
INFER_DEVICE int popcount(uint32_t bits) {
#if defined(__CUDACC__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// --- Reductions over a full warp

/// a + b, rounded: never one rounding with the product that a or b may be.
INFER_DEVICE float add_rn(float a, float b) {
#if defined(__CUDACC__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
INFER_DEVICE int add_rn(int a, int b) { return a + b; }

// A butterfly with distances 16, 8, 4, 2, 1: every lane gets the same bits. T is float or int.

template <class T>
INFER_DEVICE T warp_sum(T v, [[maybe_unused]] Site site = Site::current()) {
#if defined(__CUDACC__)
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2) v = add_rn(v, __shfl_xor_sync(kFullMask, v, d));
  return v;
#else
  return emulated::warp_reduce(emulated::Reduce::kSum, v, site);
#endif
}

template <class T>
INFER_DEVICE T warp_max(T v, [[maybe_unused]] Site site = Site::current()) {
#if defined(__CUDACC__)
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2) v = max(v, __shfl_xor_sync(kFullMask, v, d));
  return v;
#else
  return emulated::warp_reduce(emulated::Reduce::kMax, v, site);
#endif
}

template <class T>
INFER_DEVICE T warp_min(T v, [[maybe_unused]] Site site = Site::current()) {
#if defined(__CUDACC__)
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2) v = min(v, __shfl_xor_sync(kFullMask, v, d));
  return v;
#else
  return emulated::warp_reduce(emulated::Reduce::kMin, v, site);
#endif
}

// --- Atomics: integers only, since the order of float additions would change the bits

template <class T>
inline constexpr bool is_atomic =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

#if defined(__CUDACC__)
#define INFER_ATOMIC(name, device_function)                   \
  template <class T>                                          \
  INFER_DEVICE T name(T* p, T v) {                            \
    static_assert(is_atomic<T>, "atomics are integers only"); \
    return device_function(p, v);                             \
  }
INFER_ATOMIC(atomic_add, atomicAdd)
INFER_ATOMIC(atomic_max, atomicMax)
INFER_ATOMIC(atomic_min, atomicMin)
INFER_ATOMIC(atomic_exchange, atomicExch)
#undef INFER_ATOMIC
template <class T>
INFER_DEVICE T atomic_cas(T* p, T expected, T desired) {
  static_assert(is_atomic<T>, "atomics are integers only");
  return atomicCAS(p, expected, desired);
}
#else
template <class T>
T atomic_cas(T* p, T expected, T desired) {
  static_assert(is_atomic<T>, "atomics are integers only");
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
namespace detail {
template <class T, class Fn>
T atomic_update(T* p, Fn&& updated) {
  for (T seen = __atomic_load_n(p, __ATOMIC_RELAXED);;) {
    const T found = atomic_cas(p, seen, static_cast<T>(updated(seen)));
    if (found == seen) return seen;
    seen = found;
  }
}
}  // namespace detail
template <class T>
T atomic_add(T* p, T v) {
  return detail::atomic_update(p, [v](T x) { return x + v; });
}
template <class T>
T atomic_max(T* p, T v) {
  return detail::atomic_update(p, [v](T x) { return x > v ? x : v; });
}
template <class T>
T atomic_min(T* p, T v) {
  return detail::atomic_update(p, [v](T x) { return x < v ? x : v; });
}
template <class T>
T atomic_exchange(T* p, T v) {
  static_assert(is_atomic<T>, "atomics are integers only");
  return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
#endif

}  // namespace infer::cuda
