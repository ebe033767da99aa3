#pragma once

#include "kernels/cpu/avx2/attention_tile.h"

/// Quantised K and V against a block of P pairs (attention_tile.h). Levels are widened to f32 on
/// the way into the registers; scales enter once a group of kKvGroup dims, so that they cost next
/// to nothing:
///   K: g = sum over the group's d in sequence of fma(q[d], level[d][t]);  s[t] = fma(g, scale[t],
///   s[t]), groups in sequence;  V: p'[t] = p[t] * scale[t];  acc[d] = fma(p'[t], level[t][d],
///   acc[d]), t in sequence.
namespace infer::kern::avx2 {

[[gnu::always_inline]] inline __m256 f32_from_levels(__m128i bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
[[gnu::always_inline]] inline __m128i load_bytes8(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
/// Eight nibbles (low or high ones of eight bytes) minus 8, as f32.
template <bool kHigh>
[[gnu::always_inline]] inline __m256 f32_from_nibbles(__m128i bytes) {
  const __m256i wide = _mm256_cvtepu8_epi32(bytes);
  const __m256i q =
      kHigh ? _mm256_srli_epi32(wide, 4) : _mm256_and_si256(wide, _mm256_set1_epi32(15));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(8)));
}
[[gnu::always_inline]] inline __m256 load_scales8(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

/// Eight tokens from t0 on of dim d of a K tile; kOdd: d is odd.
template <KvType T, bool kOdd>
[[gnu::always_inline]] inline __m256 k_levels(const std::byte* k, int64_t d, int64_t t0) {
  if constexpr (T == KvType::kQ8_0) {
    return f32_from_levels(load_bytes8(k + d * kBlockTok + t0));
  } else {
    return f32_from_nibbles<kOdd>(load_bytes8(k + d / 2 * kBlockTok + t0));
  }
}

/// As tile_scores.
template <KvType T, int P>
[[gnu::always_inline]] inline void tile_scores_quant(const std::byte* k, int64_t head_dim,
                                                     const TilePair* pairs, const NextTile& next,
                                                     float* s) {
  constexpr int kVecs = P <= 3 ? 4 : 2;  // P * kVecs <= 12 accumulators
  const std::byte* scales = k + kv_scales_at(T, head_dim);
  const __m256 zero = _mm256_setzero_ps();
  for (int64_t i = 0; i < P * kBlockTok; i += 8) _mm256_store_ps(s + i, zero);
  for (int64_t d0 = 0; d0 < head_dim; d0 += kKvGroup, scales += kBlockTok * 2) {
    if (next.k) {
      for (int64_t d = d0; d < d0 + kKvGroup; d += kFetchRows) {
        fetch(next.k + d / kFetchRows * next.k_step, next.k_step);
        fetch(next.v + d / kFetchRows * next.v_step, next.v_step);
      }
    }
    for (int64_t t0 = 0; t0 < kBlockTok; t0 += kVecs * 8) {
      __m256 acc[P][kVecs];
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) acc[i / kVecs][i % kVecs] = zero;
      for (int64_t d = d0; d < d0 + kKvGroup; d += 2) {
        fma_outer<P, kVecs>(
            acc, [&](int p) { return _mm256_broadcast_ss(pairs[p].q + d); },
            [&](int c) { return k_levels<T, false>(k, d, t0 + c * 8); });
        fma_outer<P, kVecs>(
            acc, [&](int p) { return _mm256_broadcast_ss(pairs[p].q + d + 1); },
            [&](int c) { return k_levels<T, true>(k, d + 1, t0 + c * 8); });
      }
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) {
        const int64_t t = t0 + i % kVecs * 8;
        float* at = s + i / kVecs * kBlockTok + t;
        const __m256 sum = _mm256_load_ps(at);
        _mm256_store_ps(
            at, _mm256_fmadd_ps(acc[i / kVecs][i % kVecs], load_scales8(scales + t * 2), sum));
      }
    }
  }
}

/// Column kColumn (eight dims) of the group that starts at dim d of token t.
template <KvType T, int kColumn>
[[gnu::always_inline]] inline __m256 v_levels(const std::byte* v, int64_t n_v, int64_t t,
                                              int64_t d) {
  if constexpr (T == KvType::kQ8_0) {
    return f32_from_levels(load_bytes8(v + t * n_v + d + kColumn * 8));
  } else {
    return f32_from_nibbles<(kColumn >= 2)>(load_bytes8(v + (t * n_v + d) / 2 + kColumn % 2 * 8));
  }
}
template <KvType T>
[[gnu::always_inline]] inline __m256 v_column(const std::byte* v, int64_t n_v, int64_t t, int64_t d,
                                              int column) {
  switch (column) {  // a constant where it is called
    case 0:
      return v_levels<T, 0>(v, n_v, t, d);
    case 1:
      return v_levels<T, 1>(v, n_v, t, d);
    case 2:
      return v_levels<T, 2>(v, n_v, t, d);
    default:
      return v_levels<T, 3>(v, n_v, t, d);
  }
}

/// Columns [kFirst, kFirst + C) of the group at dim d; w [P][kBlockTok] are the p'.
template <KvType T, int P, int C, int kFirst>
[[gnu::always_inline]] inline void group_columns(const std::byte* v, int64_t n_v, int64_t d,
                                                 const TilePair* pairs, const float* w,
                                                 const float* rescale) {
  __m256 acc[P][C];
#pragma GCC unroll 16
  for (int i = 0; i < P * C; ++i) {
    const float* from = StateView{pairs[i / C].state}.acc() + d + (kFirst + i % C) * 8;
    acc[i / C][i % C] = _mm256_mul_ps(_mm256_load_ps(from), _mm256_set1_ps(rescale[i / C]));
  }
  for (int64_t t = pairs[0].begin; t < pairs[0].end; ++t) {
    fma_outer<P, C>(
        acc, [&](int p) { return _mm256_broadcast_ss(w + p * kBlockTok + t); },
        [&](int c) { return v_column<T>(v, n_v, t, d, kFirst + c); });
  }
#pragma GCC unroll 16
  for (int i = 0; i < P * C; ++i) {
    _mm256_store_ps(StateView{pairs[i / C].state}.acc() + d + (kFirst + i % C) * 8,
                    acc[i / C][i % C]);
  }
}

/// As tile_values.
template <KvType T, int P>
[[gnu::always_inline]] inline void tile_values_quant(const std::byte* v, int64_t n_v,
                                                     const TilePair* pairs, const float* s,
                                                     const float* rescale) {
  alignas(32) float w[P * kBlockTok];
  const std::byte* scales = v + kv_scales_at(T, n_v);
  for (int64_t d = 0; d < n_v; d += kKvGroup, scales += kBlockTok * 2) {
    for (int64_t t = 0; t < kBlockTok; t += 8) {
      const __m256 scale = load_scales8(scales + t * 2);
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = p * kBlockTok + t;
        _mm256_store_ps(w + at, _mm256_mul_ps(_mm256_load_ps(s + at), scale));
      }
    }
    if constexpr (P <= 3) {
      group_columns<T, P, 4, 0>(v, n_v, d, pairs, w, rescale);
    } else {
      group_columns<T, P, 2, 0>(v, n_v, d, pairs, w, rescale);
      group_columns<T, P, 2, 2>(v, n_v, d, pairs, w, rescale);
    }
  }
}

}  // namespace infer::kern::avx2
