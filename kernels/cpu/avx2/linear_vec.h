#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/inline.h"

/// Small loads and stores that the AVX2 linear kernels share. Force-inlined: nothing here becomes a
/// symbol.
namespace infer::kern::avx2 {

[[gnu::always_inline]] inline __m256i load_u8x32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
[[gnu::always_inline]] inline __m128i load_u8x16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
/// Four bytes in every 32-bit lane.
[[gnu::always_inline]] inline __m256i broadcast_u32(const void* p) {
  return _mm256_set1_epi32(static_cast<int>(load_u32(p)));
}
/// Eight halves to f32.
[[gnu::always_inline]] inline __m256 load_f16x8(const void* p) {
  return _mm256_cvtph_ps(load_u8x16(p));
}
[[gnu::always_inline]] inline __m128i load_u8x8(const void* p) {
  return _mm_loadl_epi64(static_cast<const __m128i*>(p));
}
/// All-ones in the first `count` (0..8) lanes.
[[gnu::always_inline]] inline __m256i lane_mask(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
/// Stores the first `count` (1..8) lanes.
[[gnu::always_inline]] inline void store_lanes(float* p, __m256 v, int64_t count) {
  if (count >= 8) {
    _mm256_storeu_ps(p, v);
  } else {
    _mm256_maskstore_ps(p, lane_mask(count), v);
  }
}
/// Makes the compiler finish v here. Without it GCC turns chains of integer additions into trees,
/// runs out of registers and spills the partial sums.
[[gnu::always_inline]] inline void settle(__m256i& v) { __asm__("" : "+x"(v)); }

}  // namespace infer::kern::avx2
