#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/inline.h"
#if defined(INFER_AVX512_SIMDE)
#include "kernels/cpu/avx512/simde.h"
#else
#include <immintrin.h>
#endif

/// Small loads and stores that the AVX-512 linear kernels share. Force-inlined: nothing here
/// becomes a symbol.
namespace infer::kern::avx512 {

#if !defined(INFER_AVX512_SIMDE)
/// Sixteen halves to f32.
[[gnu::always_inline]] inline __m512 load_f16x16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
[[gnu::always_inline]] inline __m512i i32_from_u8x16(__m128i v) { return _mm512_cvtepu8_epi32(v); }
[[gnu::always_inline]] inline __m512i i32_from_i8x16(__m128i v) { return _mm512_cvtepi8_epi32(v); }
[[gnu::always_inline]] inline __m512i i32_from_u16x16(__m256i v) {
  return _mm512_cvtepu16_epi32(v);
}
[[gnu::always_inline]] inline __m512 f32_from_i32(__m512i v) { return _mm512_cvtepi32_ps(v); }
/// Two quarters of a, then two of b, each by two bits of kControl.
template <int kControl>
[[gnu::always_inline]] inline __m512 shuffle_quarters(__m512 a, __m512 b) {
  return _mm512_shuffle_f32x4(a, b, kControl);
}
/// The first `count` (1..) lanes, zeros behind them.
[[gnu::always_inline]] inline __m512 load_lanes(const float* p, int64_t count) {
  if (count >= 16) return _mm512_loadu_ps(p);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), p);
}
/// Stores the first `count` (1..16) lanes.
[[gnu::always_inline]] inline void store_lanes(float* p, __m512 v, int64_t count) {
  if (count >= 16) {
    _mm512_storeu_ps(p, v);
  } else {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << count) - 1), v);
  }
}
/// Makes the compiler finish v here (avx2/linear_vec.h).
[[gnu::always_inline]] inline void settle(__m512i& v) { __asm__("" : "+v"(v)); }
#endif

[[gnu::always_inline]] inline __m512i load_u8x64(const void* p) { return _mm512_loadu_si512(p); }
[[gnu::always_inline]] inline __m128i load_u8x16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
/// Four bytes in every 32-bit lane.
[[gnu::always_inline]] inline __m512i broadcast_u32(const void* p) {
  return _mm512_set1_epi32(static_cast<int>(load_u32(p)));
}
[[gnu::always_inline]] inline __m512 broadcast_f32(const float* p) { return _mm512_set1_ps(*p); }
[[gnu::always_inline]] inline __m512 negated(__m512 v) {
  const __m512i sign = _mm512_set1_epi32(INT32_MIN);
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), sign));
}
/// lo in the low and hi in the high 16 bits of each 32-bit lane.
[[gnu::always_inline]] inline __m512i i16_pairs(__m512i lo, __m512i hi) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, lo, _mm512_slli_epi32(hi, 16));
}

}  // namespace infer::kern::avx512
