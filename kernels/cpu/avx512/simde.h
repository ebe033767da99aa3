#pragma once

// The AVX-512 intrinsics by SIMDe, for tests on hosts that have AVX2 alone (tests/ops), and in
// halves of 256 bits what SIMDe 0.7.4 lacks. Slow; no program is built with it. Inlined into tiles
// of 16 rows its functions take GCC minutes to compile.
#if defined(INFER_AVX512_SIMDE)
#define SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_NO_INLINE
#include <simde/x86/avx512.h>

#include <cstdint>

namespace infer::kern::avx512 {

template <class Vector, class Half>
[[gnu::always_inline]] inline Vector from_halves(Half lo, Half hi) {
  const Half halves[2] = {lo, hi};
  Vector v;
  __builtin_memcpy(&v, halves, sizeof(v));
  return v;
}
[[gnu::always_inline]] inline __m128i upper_half(__m128i v) { return _mm_srli_si128(v, 8); }

[[gnu::always_inline]] inline __m512 load_f16x16(const void* p) {
  const __m128i* at = static_cast<const __m128i*>(p);
  return from_halves<__m512>(_mm256_cvtph_ps(_mm_loadu_si128(at)),
                             _mm256_cvtph_ps(_mm_loadu_si128(at + 1)));
}
[[gnu::always_inline]] inline __m512i i32_from_u8x16(__m128i v) {
  return from_halves<__m512i>(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(upper_half(v)));
}
[[gnu::always_inline]] inline __m512i i32_from_i8x16(__m128i v) {
  return from_halves<__m512i>(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(upper_half(v)));
}
[[gnu::always_inline]] inline __m512i i32_from_u16x16(__m256i v) {
  return from_halves<__m512i>(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                              _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1)));
}
[[gnu::always_inline]] inline __m512 f32_from_i32(__m512i v) {
  __m256i halves[2];
  __builtin_memcpy(halves, &v, sizeof(v));
  return from_halves<__m512>(_mm256_cvtepi32_ps(halves[0]), _mm256_cvtepi32_ps(halves[1]));
}
template <int kControl>
[[gnu::always_inline]] inline __m512 shuffle_quarters(__m512 a, __m512 b) {
  __m128 from[2][4], to[4];
  __builtin_memcpy(from[0], &a, sizeof(a));
  __builtin_memcpy(from[1], &b, sizeof(b));
  for (int i = 0; i < 4; ++i) to[i] = from[i / 2][kControl >> 2 * i & 3];
  __m512 v;
  __builtin_memcpy(&v, to, sizeof(v));
  return v;
}
[[gnu::always_inline]] inline __m512 load_lanes(const float* p, int64_t count) {
  float v[16] = {};
  __builtin_memcpy(v, p, static_cast<size_t>(count < 16 ? count : 16) * sizeof(float));
  return _mm512_loadu_ps(v);
}
[[gnu::always_inline]] inline void store_lanes(float* p, __m512 v, int64_t count) {
  __builtin_memcpy(p, &v, static_cast<size_t>(count < 16 ? count : 16) * sizeof(float));
}

[[gnu::always_inline]] inline void settle(__m512i& /*v*/) {}

}  // namespace infer::kern::avx512
#endif
