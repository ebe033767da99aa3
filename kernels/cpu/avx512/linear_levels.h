#pragma once

#include "kernels/cpu/avx512/linear_vec.h"

/// Levels of 32 elements of a panel as eight vectors of unsigned bytes, quad by quad
/// (kernels/cpu/panel.h).
namespace infer::kern::avx512 {

[[gnu::always_inline]] inline __m512i low_nibbles(__m512i v) {
  return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

[[gnu::always_inline]] inline void nibble_levels(const uint8_t* at, __m512i* levels) {
  unrolled<4>([&](auto vec) __attribute__((always_inline)) {
    constexpr int i = decltype(vec)::value;
    const __m512i v = load_u8x64(at + 64 * i);
    levels[i] = low_nibbles(v);
    levels[i + 4] = low_nibbles(_mm512_srli_epi16(v, 4));
  });
}

/// Bits kFrom.. of every byte that fall under `mask` once bit kFrom is moved to bit kTo.
template <int kFrom, int kTo>
[[gnu::always_inline]] inline __m512i moved_bits(__m512i v, int mask) {
  if constexpr (kTo > kFrom) {
    v = _mm512_slli_epi16(v, kTo - kFrom);
  } else if constexpr (kTo < kFrom) {
    v = _mm512_srli_epi16(v, kFrom - kTo);
  }
  return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask)));
}

/// Adds (or sets, for kTo = 0) the two-bit fields of two vectors at bits kTo and kTo + 1.
template <int kTo>
[[gnu::always_inline]] inline void pair_levels(const uint8_t* at, __m512i* levels) {
  const __m512i v[2] = {load_u8x64(at), load_u8x64(at + 64)};
  unrolled<4>([&](auto vec) __attribute__((always_inline)) {
    constexpr int i = decltype(vec)::value;
    const __m512i lo = moved_bits<2 * i, kTo>(v[0], 3 << kTo);
    const __m512i hi = moved_bits<2 * i, kTo>(v[1], 3 << kTo);
    levels[i] = kTo == 0 ? lo : _mm512_or_si512(levels[i], lo);
    levels[i + 4] = kTo == 0 ? hi : _mm512_or_si512(levels[i + 4], hi);
  });
}

/// Adds bit i of every byte to quad i, at bit kTo.
template <int kTo>
[[gnu::always_inline]] inline void add_bit(const uint8_t* at, __m512i* levels) {
  const __m512i v = load_u8x64(at);
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int i = decltype(quad)::value;
    const __m512i bit = moved_bits<i, kTo>(v, 1 << kTo);
    levels[i] = _mm512_or_si512(levels[i], bit);
  });
}

}  // namespace infer::kern::avx512
