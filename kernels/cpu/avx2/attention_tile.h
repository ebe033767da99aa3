#pragma once

#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/table.h"

/// One KV tile against a block of P (row, query head) pairs: scores, softmax step, weighted sum of
/// V. Register blocks of at most 12 accumulators; what a pair computes does not depend on P nor on
/// the block's shape.
namespace infer::kern::avx2 {

/// Pairs in a block at most.
inline constexpr int kMaxPairs = 6;

/// One (row, query head) in one tile.
struct TilePair {
  const float* q;      ///< [head_dim]
  float* state;        ///< see StateView
  float slope;         ///< ALiBi, unused without
  int32_t distance;    ///< first slot of the tile - q_slot
  int32_t begin, end;  ///< slots of the tile that the row sees, 0 <= begin < end <= kBlockTok
};

/// The running softmax of one pair over one span: sum[8] lanes, max, then acc from float 16 on,
/// padded to 16.
struct StateView {
  float* data;
  float* sum() const { return data; }
  float& max() const { return data[8]; }
  float* acc() const { return data + 16; }
};
inline constexpr int64_t kStateHead = 16;
constexpr int64_t state_floats(int64_t head_dim_v) {
  return kStateHead + (head_dim_v + 15) / 16 * 16;
}

struct SoftmaxParams {
  float scale = 1.0f;
  float softcap = 0.0f;
  bool alibi = false;
};

/// Eight elements from element i on.
template <KvType T>
[[gnu::always_inline]] inline __m256 load8(const std::byte* p, int64_t i) {
  if constexpr (T == KvType::kF16) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * 2)));
  } else {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + i * 4));
  }
}

/// The n < 8 elements from element i on, zeros behind; memory past them is not touched.
template <KvType T>
[[gnu::always_inline]] inline __m256 load8_tail(const std::byte* p, int64_t i, int64_t n) {
  if constexpr (T == KvType::kF16) {
    alignas(16) uint16_t h[8] = {};
    std::memcpy(h, p + i * 2, static_cast<size_t>(n) * 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(h)));
  } else {
    return load_tail(reinterpret_cast<const float*>(p + i * 4), n);
  }
}

/// The next tile's K and V, brought into the second-level cache a few lines at a time while this
/// tile is computed. (Measured: all at once, or into the first level, the loads of this tile wait
/// behind them.)
struct NextTile {
  const std::byte* k = nullptr;  ///< nullptr: nothing to fetch
  const std::byte* v = nullptr;
  int64_t k_step = 0, v_step = 0;  ///< bytes to fetch with each kFetchRows dims of K
};
inline constexpr int64_t kFetchRows = 8;

[[gnu::always_inline]] inline void fetch(const std::byte* p, int64_t n_bytes) {
  for (int64_t i = 0; i < n_bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
  }
}

/// acc[p][c] = fma(weight(p), column(c), acc[p][c]). The shorter side is kept in registers: P * C
/// accumulators, that side and one more must fit in 16. The pragmas keep `acc` in registers: GCC
/// unrolls too late otherwise.
template <int P, int C, class Weight, class Column>
[[gnu::always_inline]] inline void fma_outer(__m256 (&acc)[P][C], Weight weight, Column column) {
  if constexpr (P <= C) {
    __m256 w[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) w[p] = weight(p);
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      const __m256 x = column(c);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) acc[p][c] = _mm256_fmadd_ps(w[p], x, acc[p][c]);
    }
  } else {
    __m256 x[C];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) x[c] = column(c);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const __m256 w = weight(p);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) acc[p][c] = _mm256_fmadd_ps(w, x[c], acc[p][c]);
    }
  }
}

/// s[p][t] = sum over d in sequence of q[d] * k[d][t], for all kBlockTok tokens.
/// k [head_dim][kBlockTok]; s [P][kBlockTok], 32-byte aligned.
template <KvType T, int P>
[[gnu::always_inline]] inline void tile_scores(const std::byte* k, int64_t head_dim,
                                               const TilePair* pairs, const NextTile& next,
                                               float* s) {
  constexpr int kVecs = P <= 3 ? 4 : 2;  // P * kVecs <= 12 accumulators
  for (int64_t t0 = 0; t0 < kBlockTok; t0 += kVecs * 8) {
    __m256 acc[P][kVecs];
#pragma GCC unroll 16
    for (int i = 0; i < P * kVecs; ++i) acc[i / kVecs][i % kVecs] = _mm256_setzero_ps();
    for (int64_t d0 = 0; d0 < head_dim; d0 += kFetchRows) {
      const int64_t d1 = d0 + kFetchRows < head_dim ? d0 + kFetchRows : head_dim;
      if (next.k && t0 == 0) {
        fetch(next.k + d0 / kFetchRows * next.k_step, next.k_step);
        fetch(next.v + d0 / kFetchRows * next.v_step, next.v_step);
      }
      for (int64_t d = d0; d < d1; ++d) {
        fma_outer<P, kVecs>(
            acc, [&](int p) { return _mm256_broadcast_ss(pairs[p].q + d); },
            [&](int c) { return load8<T>(k, d * kBlockTok + t0 + c * 8); });
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < P * kVecs; ++i) {
      _mm256_store_ps(s + i / kVecs * kBlockTok + t0 + i % kVecs * 8, acc[i / kVecs][i % kVecs]);
    }
  }
}

/// Scores to logits: scale, soft cap, ALiBi; masked slots become -inf. s [kBlockTok].
[[gnu::always_inline]] inline void tile_logits(const SoftmaxParams& par, const TilePair& pair,
                                               const float* s, __m256 x[4]) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 scale = _mm256_set1_ps(par.scale);
  for (int v = 0; v < 4; ++v) x[v] = _mm256_mul_ps(_mm256_load_ps(s + v * 8), scale);
  if (par.softcap != 0.0f) {
    const __m256 cap = _mm256_set1_ps(par.softcap);
    for (int v = 0; v < 4; ++v) x[v] = softcap_ps(x[v], cap);
  }
  if (par.alibi) {
    const __m256 slope = _mm256_set1_ps(pair.slope);
    for (int v = 0; v < 4; ++v) {
      const __m256i dist = _mm256_add_epi32(lane, _mm256_set1_epi32(pair.distance + v * 8));
      x[v] = _mm256_fmadd_ps(slope, _mm256_cvtepi32_ps(dist), x[v]);
    }
  }
  if (pair.begin > 0 || pair.end < kBlockTok) {
    for (int v = 0; v < 4; ++v) {
      const __m256i t = _mm256_add_epi32(lane, _mm256_set1_epi32(v * 8));
      const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(pair.begin), t);
      const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(pair.end), t);
      const __m256 keep = _mm256_castsi256_ps(_mm256_andnot_si256(before, inside));
      x[v] = _mm256_blendv_ps(_mm256_set1_ps(kNegInf), x[v], keep);
    }
  }
}

/// s becomes p = exp(logit - running max); sum lane j takes (p[j] + p[j+8]) + (p[j+16] + p[j+24]).
/// Returns the factor that acc must take. NaN logits never become the max; they reach p, hence sum
/// and acc, as NaN.
[[gnu::always_inline]] inline float tile_softmax(const SoftmaxParams& par, const TilePair& pair,
                                                 float* s) {
  const StateView state{pair.state};
  __m256 x[4];
  tile_logits(par, pair, s, x);
  const float tile_max = hmax(_mm256_max_ps(_mm256_max_ps(x[0], x[1]), _mm256_max_ps(x[2], x[3])));
  const float old_max = state.max();
  const float max = tile_max > old_max ? tile_max : old_max;
  const float rescale = max == old_max ? 1.0f : exp_nonpos(old_max - max);
  const __m256 vmax = _mm256_set1_ps(max);
  for (int v = 0; v < 4; ++v) {
    x[v] = exp_nonpos(_mm256_sub_ps(x[v], vmax));
    _mm256_store_ps(s + v * 8, x[v]);
  }
  const __m256 sum = _mm256_add_ps(_mm256_add_ps(x[0], x[1]), _mm256_add_ps(x[2], x[3]));
  const __m256 old_sum = _mm256_load_ps(state.sum());
  _mm256_store_ps(state.sum(), _mm256_fmadd_ps(old_sum, _mm256_set1_ps(rescale), sum));
  state.max() = max;
  return rescale;
}

/// C vectors of acc from element d on (C = 1 and n_v - d < 8 elements if kTail): acc = acc *
/// rescale, then acc = fma(p[t], v[t], acc) for t in [begin, end) in sequence.
template <KvType T, int P, int C, bool kTail>
[[gnu::always_inline]] inline void value_columns(const std::byte* v, int64_t n_v, int64_t d,
                                                 const TilePair* pairs, const float* s,
                                                 const float* rescale) {
  __m256 acc[P][C];
#pragma GCC unroll 16
  for (int i = 0; i < P * C; ++i) {
    const float* from = StateView{pairs[i / C].state}.acc() + d + i % C * 8;
    acc[i / C][i % C] = _mm256_mul_ps(_mm256_load_ps(from), _mm256_set1_ps(rescale[i / C]));
  }
  for (int64_t t = pairs[0].begin; t < pairs[0].end; ++t) {
    fma_outer<P, C>(
        acc, [&](int p) { return _mm256_broadcast_ss(s + p * kBlockTok + t); },
        [&](int c) {
          if constexpr (kTail) return load8_tail<T>(v, t * n_v + d, n_v - d);
          return load8<T>(v, t * n_v + d + c * 8);
        });
  }
#pragma GCC unroll 16
  for (int i = 0; i < P * C; ++i) {
    _mm256_store_ps(StateView{pairs[i / C].state}.acc() + d + i % C * 8, acc[i / C][i % C]);
  }
}

/// acc[p] = acc[p] * rescale[p] + sum over visible t of s[p][t] * v[t]. v [kBlockTok][n_v]; all
/// pairs see the same slots.
template <KvType T, int P>
[[gnu::always_inline]] inline void tile_values(const std::byte* v, int64_t n_v,
                                               const TilePair* pairs, const float* s,
                                               const float* rescale) {
  constexpr int kVecs = P == 1 ? 8 : (P <= 3 ? 4 : 2);  // P * kVecs <= 12 accumulators
  int64_t d = 0;
  for (; d + kVecs * 8 <= n_v; d += kVecs * 8) {
    value_columns<T, P, kVecs, false>(v, n_v, d, pairs, s, rescale);
  }
  for (; d + 8 <= n_v; d += 8) value_columns<T, P, 1, false>(v, n_v, d, pairs, s, rescale);
  if (d < n_v) value_columns<T, P, 1, true>(v, n_v, d, pairs, s, rescale);
}

}  // namespace infer::kern::avx2
