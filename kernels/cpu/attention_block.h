#pragma once

#include "kernels/cpu/exp.h"
#include "kernels/cpu/inline.h"
#include "kernels/cpu/table.h"

/// One KV tile (kBlockTok slots) against a block of P (row, query head) pairs: scores, softmax
/// step, weighted sum of V. Written once for every width of vector: V is the level's vector class
/// (avx2/attention.cpp says what it has), in an anonymous namespace, so that what is compiled from
/// here stays local to the level. What a pair computes depends neither on P nor on V.
namespace infer::kern {

/// Pairs in a block at most: with two vectors a pair, 12 accumulators, which hide the latency of
/// fma and leave 4 of 16 registers for operands.
inline constexpr int kMaxPairs = 6;
/// Room for the maxima of a block, so that they are one vector.
inline constexpr int kMaxLanes = 8;

/// The running softmax of a block's pairs over one span:
///   max [kMaxLanes]; then of each pair: sum [8 lanes], 8 floats free, acc [head_dim_v, padded].
struct BlockState {
  float* data;
  int64_t pair_stride;  ///< floats
  float* max() const { return data; }
  /// With pair p in the place of the first; without max().
  BlockState from(int64_t p) const { return {data + p * pair_stride, pair_stride}; }
  float* sum(int64_t p) const { return data + 16 + p * pair_stride; }
  float* acc(int64_t p) const { return sum(p) + 16; }
};
/// acc is padded to this, and so are the rows of a widened V tile.
[[gnu::always_inline]] constexpr int64_t padded_dim(int64_t head_dim_v) {
  return (head_dim_v + 15) / 16 * 16;
}
[[gnu::always_inline]] constexpr int64_t pair_floats(int64_t head_dim_v) {
  return 16 + padded_dim(head_dim_v);
}

/// What the pairs of a block see of a tile.
struct BlockView {
  bool full = true;          ///< all see all of it: begin and end are not set
  bool empty = false;        ///< none sees any of it
  int32_t begin[kMaxPairs];  ///< slots of the tile that a pair sees; none: begin = end = 0
  int32_t end[kMaxPairs];
  int32_t distance[kMaxPairs];  ///< ALiBi: first slot of the tile - q_slot
  float slope[kMaxPairs];
};

struct SoftmaxParams {
  float softcap = 0.0f;
  bool alibi = false;
};

/// A block's share of the next tile's K and V, brought into the second-level cache a few lines at a
/// time while scores are computed. (Measured: all of it in the first block, or into the first
/// level, the loads of this tile wait behind them.)
struct NextTile {
  const std::byte* k = nullptr;  ///< nullptr: nothing to fetch
  const std::byte* v = nullptr;
  int64_t k_step = 0, v_step = 0;  ///< bytes to fetch with each kFetchRows dims of K
};
inline constexpr int64_t kFetchRows = 8;

[[gnu::always_inline]] inline void fetch(const std::byte* p, int64_t n_bytes) {
  for (int64_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

/// A K tile of one head: kLanes tokens of one dim as f32. A quantised level times its scale is
/// exact in f32 (8 bits by 11), so that those types share every order below.
template <class V, KvType T>
struct KTile {
  const std::byte* data;
  const std::byte* scales;
  float scale[is_quantised(T) ? kBlockTok : 1] = {};  ///< of the group that begin() was called for

  [[gnu::always_inline]] KTile(const std::byte* k, int64_t head_dim)
      : data(k), scales(k + kv_scales_at(T, head_dim)) {}
  /// Before dims [d, d + kFetchRows).
  [[gnu::always_inline]] void begin(int64_t d) {
    if constexpr (is_quantised(T)) {
      if (d % kKvGroup != 0) return;
      for (int64_t t = 0; t < kBlockTok; t += V::kLanes) {
        V::store(scale + t, V::load_f16(scales + (d / kKvGroup * kBlockTok + t) * 2));
      }
    }
  }
  [[gnu::always_inline]] typename V::Reg load(int64_t d, int64_t t) const {
    if constexpr (T == KvType::kF32) {
      return V::load(reinterpret_cast<const float*>(data) + d * kBlockTok + t);
    } else if constexpr (T == KvType::kF16) {
      return V::load_f16(data + (d * kBlockTok + t) * 2);
    } else if constexpr (T == KvType::kQ8_0) {
      return V::mul(V::load_i8(data + d * kBlockTok + t), V::load(scale + t));
    } else {
      const std::byte* bytes = data + d / 2 * kBlockTok + t;
      const auto level = d % 2 == 0 ? V::load_low4(bytes) : V::load_high4(bytes);
      return V::mul(level, V::load(scale + t));
    }
  }
};

/// A V tile of one head: kLanes dims of one token as f32.
template <class V, KvType T>
struct VTile {
  const std::byte* data;
  int64_t dim;  ///< elements of a row
  const std::byte* scales;
  float scale[is_quantised(T) ? kBlockTok : 1] = {};  ///< of the group that begin() was called for

  [[gnu::always_inline]] VTile(const std::byte* v, int64_t head_dim_v)
      : data(v), dim(head_dim_v), scales(v + kv_scales_at(T, head_dim_v)) {}
  /// Before dims of the group that starts at d.
  [[gnu::always_inline]] void begin(int64_t d) {
    if constexpr (is_quantised(T)) {
      for (int64_t t = 0; t < kBlockTok; t += V::kLanes) {
        V::store(scale + t, V::load_f16(scales + (d / kKvGroup * kBlockTok + t) * 2));
      }
    }
  }
  /// Dims [d + i, d + i + kLanes); quantised: of the group at d.
  [[gnu::always_inline]] typename V::Reg load(int64_t t, int64_t d, int64_t i) const {
    const int64_t at = t * dim + d;
    if constexpr (T == KvType::kF32) {
      return V::load(reinterpret_cast<const float*>(data) + at + i);
    } else if constexpr (T == KvType::kF16) {
      return V::load_f16(data + (at + i) * 2);
    } else if constexpr (T == KvType::kQ8_0) {
      return V::mul(V::load_i8(data + at + i), V::broadcast(scale + t));
    } else {
      constexpr int64_t kHalf = kKvGroup / 2;
      const std::byte* bytes = data + at / 2 + i % kHalf;
      const auto level = i < kHalf ? V::load_low4(bytes) : V::load_high4(bytes);
      return V::mul(level, V::broadcast(scale + t));
    }
  }
};

/// acc[p][c] = fma(weight(p), column(c), acc[p][c]). The shorter side is kept in registers. The
/// pragmas keep `acc` in registers: GCC unrolls too late otherwise.
template <class V, int P, int C, class Weight, class Column>
[[gnu::always_inline]] inline void fma_outer(typename V::Reg (&acc)[P][C], Weight weight,
                                             Column column) {
  typename V::Reg kept[min_of(P, C)];
  if constexpr (P <= C) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) kept[p] = weight(p);
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      const auto x = column(c);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) acc[p][c] = V::fma(kept[p], x, acc[p][c]);
    }
  } else {
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) kept[c] = column(c);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const auto w = weight(p);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) acc[p][c] = V::fma(w, kept[c], acc[p][c]);
    }
  }
}

/// step(i) for i in [begin, end), eight to an iteration: short loops, whose ends are predicted.
template <class Step>
[[gnu::always_inline]] inline void in_eights(int64_t begin, int64_t end, Step step) {
  int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < 8; ++j) step(i + j);
  }
  for (; i < end; ++i) step(i);
}

/// s[p][t] = sum over d in sequence of q[d][p] * k[d][t], for all kBlockTok tokens. q
/// [head_dim][P]; s [P][kBlockTok], 64-byte aligned.
template <class V, KvType T, int P>
[[gnu::noinline]] void block_scores(const std::byte* k, int64_t head_dim, const float* q,
                                    const NextTile& next, float* s) {
  constexpr int kVecs = V::score_vecs(P);
  KTile<V, T> tile(k, head_dim);
  for (int64_t t0 = 0; t0 < kBlockTok; t0 += kVecs * V::kLanes) {
    typename V::Reg acc[P][kVecs];
#pragma GCC unroll 32
    for (int i = 0; i < P * kVecs; ++i) acc[i / kVecs][i % kVecs] = V::zero();
    for (int64_t d0 = 0; d0 < head_dim; d0 += kFetchRows) {
      const int64_t d1 = min_of(d0 + kFetchRows, head_dim);
      if (next.k && t0 == 0) {
        fetch(next.k + d0 / kFetchRows * next.k_step, next.k_step);
        fetch(next.v + d0 / kFetchRows * next.v_step, next.v_step);
      }
      tile.begin(d0);
      in_eights(d0, d1, [&](int64_t d) {
        fma_outer<V, P, kVecs>(
            acc, [&](int p) { return V::broadcast(q + d * P + p); },
            [&](int c) { return tile.load(d, t0 + c * V::kLanes); });
      });
    }
#pragma GCC unroll 32
    for (int i = 0; i < P * kVecs; ++i) {
      V::store(s + i / kVecs * kBlockTok + t0 + i % kVecs * V::kLanes, acc[i / kVecs][i % kVecs]);
    }
  }
}

/// Vectors that hold a pair's scores in a tile.
template <class V>
inline constexpr int kScoreVecs = kBlockTok / V::kLanes;

/// Scores to logits where there is more to do than nothing: soft cap, ALiBi; masked slots become
/// -inf. s [kBlockTok].
template <class V>
[[gnu::always_inline]] inline void finish_logits(const SoftmaxParams& par, const BlockView& view,
                                                 int p, float* s) {
  for (int i = 0; i < kScoreVecs<V>; ++i) {
    const int32_t t = i * V::kLanes;
    auto x = V::load(s + t);
    if (par.softcap != 0.0f) x = V::softcap(x, par.softcap);
    if (par.alibi) x = V::fma(V::set1(view.slope[p]), V::count_from(view.distance[p] + t), x);
    if (!view.full) x = V::keep_between(x, view.begin[p] - t, view.end[p] - t);
    V::store(s + t, x);
  }
}

/// s becomes p = exp(logit - running max); sum lane j takes (p[j] + p[j+8]) + (p[j+16] + p[j+24]).
/// rescale [kMaxLanes]: the factors that acc must take. NaN logits never become the max; they reach
/// p, hence sum and acc, as NaN. A pair that sees nothing is not touched.
template <class V>
[[gnu::always_inline]] inline void block_softmax(const SoftmaxParams& par, const BlockView& view,
                                                 int n, BlockState state, float* s,
                                                 float* rescale) {
  alignas(32) float tile_max[kMaxLanes];
  for (int p = 0; p < kMaxLanes; ++p) tile_max[p] = -__builtin_inff();
  const bool plain = view.full && par.softcap == 0.0f && !par.alibi;
  for (int p = 0; p < n; ++p) {
    float* x = s + p * kBlockTok;
    if (!plain) {
      if (!view.full && view.end[p] == 0) continue;
      finish_logits<V>(par, view, p, x);
    }
    tile_max[p] = V::max_of_tile(x);
  }
  V::raise_max(tile_max, state.max(), rescale);
  for (int p = 0; p < n; ++p) {
    if (!view.full && view.end[p] == 0) continue;
    float* x = s + p * kBlockTok;
    const auto max = V::broadcast(state.max() + p);
    typename V::Reg e[kScoreVecs<V>];
#pragma GCC unroll 4
    for (int i = 0; i < kScoreVecs<V>; ++i) {
      e[i] = exp_nonpos_of<V>(V::sub(V::load(x + i * V::kLanes), max));
      V::store(x + i * V::kLanes, e[i]);
    }
    V::add_to_sum(e, rescale[p], state.sum(p));
  }
}

/// kVecs vectors of acc from dim d on: acc = acc * rescale, then acc = fma(p[t], v[t], acc) for t
/// in [begin, end) in sequence.
template <class V, KvType T, int P, int kVecs>
[[gnu::always_inline]] inline void value_columns(VTile<V, T>& tile, int64_t d, int64_t begin,
                                                 int64_t end, BlockState state, const float* s,
                                                 const float* rescale) {
  typename V::Reg acc[P][kVecs];
#pragma GCC unroll 32
  for (int i = 0; i < P * kVecs; ++i) {
    const float* from = state.acc(i / kVecs) + d + i % kVecs * V::kLanes;
    acc[i / kVecs][i % kVecs] = V::mul(V::load(from), V::broadcast(rescale + i / kVecs));
  }
  tile.begin(d);
  in_eights(begin, end, [&](int64_t t) {
    fma_outer<V, P, kVecs>(
        acc, [&](int p) { return V::broadcast(s + p * kBlockTok + t); },
        [&](int c) { return tile.load(t, d, c * V::kLanes); });
  });
#pragma GCC unroll 32
  for (int i = 0; i < P * kVecs; ++i) {
    V::store(state.acc(i / kVecs) + d + i % kVecs * V::kLanes, acc[i / kVecs][i % kVecs]);
  }
}

/// acc[p] = acc[p] * rescale[p] + sum over t in [begin, end) of s[p][t] * v[t] for P pairs. v
/// [kBlockTok][n_v], n_v a multiple of 16 (quantised: of kKvGroup).
template <class V, KvType T, int P>
[[gnu::noinline]] void block_values(const std::byte* v, int64_t n_v, int64_t begin, int64_t end,
                                    BlockState state, const float* s, const float* rescale) {
  constexpr int kVecs = is_quantised(T) ? kKvGroup / V::kLanes : V::value_vecs(P);
  constexpr int kRest = 16 / V::kLanes;
  VTile<V, T> tile(v, n_v);
  int64_t d = 0;
  for (; d + kVecs * V::kLanes <= n_v; d += kVecs * V::kLanes) {
    value_columns<V, T, P, kVecs>(tile, d, begin, end, state, s, rescale);
  }
  if constexpr (kVecs > kRest && !is_quantised(T)) {
    for (; d < n_v; d += 16) {
      value_columns<V, T, P, kRest>(tile, d, begin, end, state, s, rescale);
    }
  }
}

/// A K tile as f32 [head_dim][kBlockTok].
template <class V, KvType T>
[[gnu::noinline]] void widen_k(const std::byte* k, int64_t head_dim, float* to) {
  KTile<V, T> tile(k, head_dim);
  for (int64_t d = 0; d < head_dim; ++d) {
    tile.begin(d);
    for (int64_t t = 0; t < kBlockTok; t += V::kLanes) {
      V::store(to + d * kBlockTok + t, tile.load(d, t));
    }
  }
}

/// A V tile as f32 [kBlockTok][padded_dim(head_dim_v)], zeros behind each row.
template <class V, KvType T>
[[gnu::noinline]] void widen_v(const std::byte* v, int64_t head_dim_v, float* to) {
  const int64_t stride = padded_dim(head_dim_v);
  VTile<V, T> tile(v, head_dim_v);
  if constexpr (is_quantised(T)) {
    for (int64_t d = 0; d < head_dim_v; d += kKvGroup) {
      tile.begin(d);
      for (int64_t t = 0; t < kBlockTok; ++t) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kKvGroup; i += V::kLanes) {
          V::store(to + t * stride + d + i, tile.load(t, d, i));
        }
      }
    }
  } else {
    if (stride == head_dim_v) {
      for (int64_t i = 0; i < kBlockTok * stride; i += V::kLanes)
        V::store(to + i, tile.load(0, i, 0));
      return;
    }
    constexpr int64_t kSize = T == KvType::kF16 ? 2 : 4;
    for (int64_t t = 0; t < kBlockTok; ++t) {
      int64_t d = 0;
      for (; d + V::kLanes <= head_dim_v; d += V::kLanes) {
        V::store(to + t * stride + d, tile.load(t, d, 0));
      }
      for (; d < stride; d += V::kLanes) {
        alignas(64) std::byte rest[64] = {};  // memory past the row is not touched
        const int64_t n = max_of(0, head_dim_v - d);
        __builtin_memcpy(rest, v + (t * head_dim_v + d) * kSize, static_cast<size_t>(n * kSize));
        V::store(to + t * stride + d, VTile<V, T>(rest, V::kLanes).load(0, 0, 0));
      }
    }
  }
}

}  // namespace infer::kern
