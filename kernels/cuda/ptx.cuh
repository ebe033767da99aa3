#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/device.cuh"

/// Instructions that only PTX has, with the fragment layouts of the PTX ISA (section "Warp-level
/// matrix instructions"): tensor cores, their loads, asynchronous copies, fast approximations, wide
/// loads. In the layouts below g = lane / 4, t = lane % 4, and a register holds its elements low
/// half (byte) first.
namespace infer::cuda {

// --- Tensor cores: d += a * b, by the full warp

// d (f32, s32) of every m16n8 shape: d[0], d[1] = row g, columns 2t, 2t + 1; d[2], d[3] = row g
// + 8.

/// f16, m16n8k16. a[0] = row g, k 2t..2t+1; a[1] = row g + 8; a[2], a[3] = the same rows, k + 8.
/// b[0] = k 2t..2t+1 of column g; b[1] = k + 8. Two m16n8k8 on sm_75, which have the same halves.
INFER_DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                          [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  if (architecture() >= 80) return emulated::mma(emulated::Mma::kF16K16, d, a, b, site);
  emulated::mma(emulated::Mma::kF16K8, d, a, b, site);
  emulated::mma(emulated::Mma::kF16K8, d, a + 2, b + 1, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}

/// bf16, m16n8k16, laid out as f16's. Needs sm_80: on sm_75 convert to f16 or f32 first.
INFER_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  emulated::mma(emulated::Mma::kBf16K16, d, a, b, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

/// s8, m16n8k32. a[0] = row g, k 4t..4t+3; a[1] = row g + 8; a[2], a[3] = the same rows, k + 16.
/// b[0] = k 4t..4t+3 of column g; b[1] = k + 16. Four m8n8k16 on sm_75, which have the same
/// quarters.
INFER_DEVICE void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  if (architecture() >= 80) return emulated::mma(emulated::Mma::kS8K32, d, a, b, site);
  for (int i = 0; i < 4; ++i)
    emulated::mma(emulated::Mma::kS8M8K16, d + 2 * (i % 2), a + i, b + i / 2, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(d[2 * (i % 2)]), "+r"(d[2 * (i % 2) + 1])
                 : "r"(a[i]), "r"(b[i / 2]));
  }
#endif
}

/// s8, m16n8k16: the first half of mma_s8's k. Two m8n8k16 on sm_75.
INFER_DEVICE void mma_s8_k16(int (&d)[4], const uint32_t (&a)[2], uint32_t b,
                             [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  if (architecture() >= 80) return emulated::mma(emulated::Mma::kS8K16, d, a, &b, site);
  for (int i = 0; i < 2; ++i) emulated::mma(emulated::Mma::kS8M8K16, d + 2 * i, a + i, &b, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
#else
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(d[2 * i]), "+r"(d[2 * i + 1])
                 : "r"(a[i]), "r"(b));
  }
#endif
}

/// N (1, 2 or 4) matrices of 8 x 8 16-bit elements from shared memory. Lane 8 i + r passes the
/// address of row r of matrix i, 16 bytes aligned; on sm_75 the lanes above 8 N pass valid
/// addresses too. out[i] = row g, columns 2t, 2t + 1 of matrix i; with kTransposed of its
/// transpose.
template <int N, bool kTransposed = false>
INFER_DEVICE void ldmatrix(uint32_t (&out)[N], const void* row,
                           [[maybe_unused]] Site site = Site::current()) {
  static_assert(N == 1 || N == 2 || N == 4);
#if !defined(__CUDACC__)
  emulated::ldmatrix(N, kTransposed, row, out, site);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (N == 1 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(out[0])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(out[0])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 2 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
  else if constexpr (N == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
  else if constexpr (!kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}

// --- Asynchronous copies from global to shared memory

// Nothing may be read from the destination before cp_async_wait by the lane that copied and a
// barrier for the others. sm_75 has none: there the copy is done at once and commit and wait do
// nothing.

/// Copies kBytes (4, 8 or 16; both addresses aligned so): the first source_bytes from `global`,
/// then zeros.
template <int kBytes>
INFER_DEVICE void cp_async(void* shared, const void* global, int source_bytes = kBytes,
                           [[maybe_unused]] Site site = Site::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#if !defined(__CUDACC__)
  emulated::cp_async(shared, global, kBytes, source_bytes, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const auto source = __cvta_generic_to_global(global);
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source),
                 "r"(source_bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(source),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
#else
  using Wide =
      std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, uint32_t> >;
  if (source_bytes == kBytes) {
    *static_cast<Wide*>(shared) = *static_cast<const Wide*>(global);
    return;
  }
  uint32_t words[kBytes / 4];
#pragma unroll
  for (int i = 0; i < kBytes / 4; ++i) {
    words[i] = 0;
    if (4 * i + 4 <= source_bytes) words[i] = static_cast<const uint32_t*>(global)[i];
  }
  if (source_bytes % 4 != 0)
    memcpy(&words[source_bytes / 4], static_cast<const char*>(global) + source_bytes / 4 * 4,
           source_bytes % 4);
  memcpy(__builtin_assume_aligned(shared, kBytes), words, kBytes);
#endif
}

/// Closes the group of this lane's copies since the last commit (an empty one counts).
INFER_DEVICE void cp_async_commit() {
#if !defined(__CUDACC__)
  emulated::cp_async_commit();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most kPending of this lane's youngest groups are under way.
template <int kPending>
INFER_DEVICE void cp_async_wait([[maybe_unused]] Site here = Site::current()) {
#if !defined(__CUDACC__)
  if (!emulated::left_out(here)) emulated::cp_async_wait(kPending);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// --- Arithmetic

/// c + the dot product of four signed bytes.
INFER_DEVICE int dp4a(int a, int b, int c) {
#if defined(__CUDACC__)
  return __dp4a(a, b, c);
#else
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
#endif
}

/// 2^x; subnormals, read or made, are zeros. At most 2 ulp from the exact value on a GPU.
INFER_DEVICE float exp2_approx(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
#endif
}

/// 1 / sqrt(x); subnormals read count as zeros. Relative error at most 2^-22.9 on a GPU.
INFER_DEVICE float rsqrt_approx(float x) {
#if defined(__CUDACC__)
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  if (std::fabs(x) < 0x1p-126f) x = std::copysign(0.0f, x);
  return 1.0f / std::sqrt(x);
#endif
}

// --- Wide loads and stores

// T is one of CUDA's vector types or a scalar; the address is a multiple of sizeof(T), which the
// hardware demands.

template <class T>
INFER_DEVICE T load(const void* address, [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  emulated::check_aligned(address, sizeof(T), site);
#endif
  return *static_cast<const T*>(address);
}

/// A load of what no kernel writes while this one runs: cached for reading only.
template <class T>
INFER_DEVICE T load_readonly(const void* address, [[maybe_unused]] Site site = Site::current()) {
#if defined(__CUDACC__)
  return __ldg(static_cast<const T*>(address));
#else
  return load<T>(address, site);
#endif
}

template <class T>
INFER_DEVICE void store(void* address, T value, [[maybe_unused]] Site site = Site::current()) {
#if !defined(__CUDACC__)
  emulated::check_aligned(address, sizeof(T), site);
#endif
  *static_cast<T*>(address) = value;
}

}  // namespace infer::cuda
