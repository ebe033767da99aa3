#pragma once

#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx512/linear_levels.h"

namespace infer::kern::avx512 {

inline constexpr int kIq4Offset = 128;  ///< added to the table's levels, which makes them unsigned

/// Levels behind 4-bit indices (nibbles as in a panel), plus kIq4Offset.
[[gnu::always_inline]] inline void iq4_levels(const uint8_t* at, __m512i* levels) {
  const __m128i levels16 = load_u8x16(kIq4Levels);
  const __m512i table = _mm512_xor_si512(_mm512_broadcast_i32x4(levels16), _mm512_set1_epi8(-128));
  nibble_levels(at, levels);
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int i = decltype(quad)::value;
    levels[i] = _mm512_shuffle_epi8(table, levels[i]);
  });
}

}  // namespace infer::kern::avx512
