#pragma once

#include "kernels/cpu/avx2/linear_precise.h"
#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/panel.h"

/// What the kernels of several quantised types share. "Quad i" and panels: kernels/cpu/panel.h.
namespace infer::kern::avx2 {

[[gnu::always_inline]] inline void nibble_levels(const uint8_t* at, int i, __m256i& lo,
                                                 __m256i& hi) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i v = load_u8x32(at + 32 * i);
  settle(v);
  lo = _mm256_and_si256(v, nibble);
  hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
}

/// Bits 2 * kVec, 2 * kVec + 1 of every byte, moved to bits kTo, kTo + 1.
template <int kVec, int kTo>
[[gnu::always_inline]] inline __m256i bit_pair(__m256i bits) {
  __m256i moved;
  if constexpr (kTo > 2 * kVec) {
    moved = _mm256_slli_epi16(bits, kTo - 2 * kVec);
  } else {
    moved = _mm256_srli_epi16(bits, 2 * kVec - kTo);
  }
  return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(3 << kTo)));
}

/// Bits kVec (of lo) and kVec + 4 (of hi) of every byte, moved to bit kTo and added.
template <int kVec, int kTo>
[[gnu::always_inline]] inline void add_bit(__m256i bits, __m256i& lo, __m256i& hi) {
  const __m256i mask = _mm256_set1_epi8(1 << kTo);
  __m256i moved_hi;
  if constexpr (kTo > kVec + 4) {
    moved_hi = _mm256_slli_epi16(bits, kTo - kVec - 4);
  } else {
    moved_hi = _mm256_srli_epi16(bits, kVec + 4 - kTo);
  }
  __m256i moved_lo;
  if constexpr (kTo > kVec) {
    moved_lo = _mm256_slli_epi16(bits, kTo - kVec);
  } else {
    moved_lo = _mm256_srli_epi16(bits, kVec - kTo);
  }
  lo = _mm256_or_si256(lo, _mm256_and_si256(moved_lo, mask));
  hi = _mm256_or_si256(hi, _mm256_and_si256(moved_hi, mask));
}

/// Eight bytes, each twice in the 16-bit halves of its 32-bit lane, zero-extended.
[[gnu::always_inline]] inline __m256i twice_u8(__m128i bytes) {
  constexpr char kZ = -128;
  const __m256i spread =
      _mm256_setr_epi8(0, kZ, 0, kZ, 1, kZ, 1, kZ, 2, kZ, 2, kZ, 3, kZ, 3, kZ,  //
                       4, kZ, 4, kZ, 5, kZ, 5, kZ, 6, kZ, 6, kZ, 7, kZ, 7, kZ);
  return _mm256_shuffle_epi8(_mm256_broadcastq_epi64(bytes), spread);
}

/// The same with sign.
[[gnu::always_inline]] inline __m256i twice_i8(__m128i bytes) {
  constexpr char kZ = -128;
  const __m256i spread =
      _mm256_setr_epi8(kZ, 0, kZ, 0, kZ, 1, kZ, 1, kZ, 2, kZ, 2, kZ, 3, kZ, 3,  //
                       kZ, 4, kZ, 4, kZ, 5, kZ, 5, kZ, 6, kZ, 6, kZ, 7, kZ, 7);
  return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_broadcastq_epi64(bytes), spread), 8);
}

[[gnu::always_inline]] inline __m256 f32_from_u8x8(__m128i bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
[[gnu::always_inline]] inline __m256 f32_from_i8x8(__m128i bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
[[gnu::always_inline]] inline __m256 negated(__m256 v) {
  return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

/// Decodes one quad of signed levels: dst [4][kPanelRows] = scale * level.
[[gnu::always_inline]] inline void decode_signed_quad(__m256i bytes, __m256 scale, float* dst) {
  for (int j = 0; j < 4; ++j) {
    const __m256i q = _mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * j), 24);
    _mm256_storeu_ps(dst + j * kPanelRows, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(q)));
  }
}

}  // namespace infer::kern::avx2
