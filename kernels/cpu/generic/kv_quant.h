#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "core/base/half.h"
#include "kernels/cpu/table.h"

/// How K and V become q8_0 and q4_0, the same at every ISA level. Force-inlined: nothing here
/// becomes a symbol.
///
/// Before they are rounded, each head's row is rotated by a Hadamard matrix H (orthogonal and its
/// own inverse), which spreads the few large channels of a head over all of them: a group's scale
/// then fits its elements. Scores keep their value because the query is rotated as well, (Hq).(Hk)
/// = q.k; the output, a sum of rotated V rows, is rotated back at the end. Source: QuaRot,
/// arXiv:2404.00456, section 4; llama.cpp does the same (pull request 21038).
namespace infer::kern {

inline constexpr int64_t kMaxRotation = 128;

/// Rows of a head are rotated in pieces: the largest power of two that divides dim, at most
/// kMaxRotation.
[[gnu::always_inline]] inline int64_t rotation_len(int64_t dim) {
  const int64_t n = dim & -dim;
  return n < kMaxRotation ? n : kMaxRotation;
}

/// out = H x for each piece of a row (Walsh-Hadamard butterflies, then one product with 1 /
/// sqrt(n)). dim a multiple of kKvGroup; out may be x.
[[gnu::always_inline]] inline void rotate_kv(const float* x, int64_t dim, float* out) {
  const int64_t n = rotation_len(dim);
  const float norm = n == 32 ? 0.17677669529663687f : n == 64 ? 0.125f : 0.08838834764831845f;
  for (int64_t at = 0; at < dim; at += n) {
    float y[kMaxRotation];
    for (int64_t i = 0; i < n; ++i) y[i] = x[at + i];
    for (int64_t half = 1; half < n; half *= 2) {
      for (int64_t i = 0; i < n; i += 2 * half) {
        for (int64_t j = i; j < i + half; ++j) {
          const float a = y[j], b = y[j + half];
          y[j] = a + b;
          y[j + half] = a - b;
        }
      }
    }
    for (int64_t i = 0; i < n; ++i) out[at + i] = y[i] * norm;
  }
}

/// A rotated piece of one token and head: x[i] = f16(d[i / kKvGroup]) * q[i].
struct KvPiece {
  int8_t q[kMaxRotation];               ///< q8_0: -127..127; q4_0: -8..7
  uint16_t d[kMaxRotation / kKvGroup];  ///< half bits; NaN when an element is no finite number
};

/// Nearest integer in [low, high], ties to even, as a float. v is no NaN.
[[gnu::always_inline]] inline float nearest_level(float v, float low, float high) {
  v = v < low ? low : (v > high ? high : v);
  return (v + 0x1.8p23f) - 0x1.8p23f;
}

/// Levels of one group by the scale `d` as it is stored; returns the sum of squared errors.
[[gnu::always_inline]] inline float round_group(const float* x, float d, float low, float high,
                                                int8_t* q) {
  const float inv = 1.0f / d;
  float err[8] = {};  // lanes, so that the compiler may use vectors
  for (int i = 0; i < kKvGroup; i += 8) {
    for (int l = 0; l < 8; ++l) {
      const float level = nearest_level(x[i + l] * inv, low, high);
      const float e = level * d - x[i + l];
      q[i + l] = static_cast<int8_t>(level);
      err[l] += e * e;
    }
  }
  return ((err[0] + err[4]) + (err[2] + err[6])) + ((err[1] + err[5]) + (err[3] + err[7]));
}

/// One group: q8_0 gives 127 to the largest magnitude; q4_0 tries some scales about those that give
/// it the last level of either side, and keeps the one of least squared error (the first of
/// equals).
template <KvType T>
[[gnu::always_inline]] inline void quantise_group(const float* x, int8_t* q, uint16_t* d_out) {
  constexpr bool kEight = T == KvType::kQ8_0;
  constexpr float kTop = kEight ? 127.0f : 7.0f, kBottom = kEight ? -127.0f : -8.0f;
  constexpr float kDivisors[] = {
      kEight ? 127.0f : -8.0f, -8.5f, -9.0f, -7.5f, -7.0f, 7.5f, 7.0f, 6.5f};
  uint32_t max_bits = 0;  // magnitudes order like their bits; NaN and inf come out on top
  float extreme = 0.0f;
  for (int i = 0; i < kKvGroup; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    extreme = bits > max_bits ? x[i] : extreme;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  if (kEight) extreme = std::bit_cast<float>(max_bits);
  std::memset(q, 0, kKvGroup);
  *d_out = f16_from_f32(extreme / kDivisors[0]);
  if ((*d_out & 0x7c00u) == 0x7c00u) {
    *d_out = 0x7e00u;
    return;
  }
  const float d = f32_from_f16(*d_out);
  if (d == 0.0f) return;
  float best = round_group(x, d, kBottom, kTop, q);
  if constexpr (kEight) return;
  for (int c = 1; c < 8; ++c) {
    const uint16_t bits = f16_from_f32(extreme / kDivisors[c]);
    const bool usable = (bits & 0x7c00u) != 0x7c00u && (bits & 0x7fffu) != 0;
    int8_t levels[kKvGroup];
    const float err = usable ? round_group(x, f32_from_f16(bits), kBottom, kTop, levels) : best;
    if (!(err < best)) continue;
    best = err;
    *d_out = bits;
    std::memcpy(q, levels, kKvGroup);
  }
}

inline constexpr int64_t kShapeQueries = 8;  // of a KV head's, evenly chosen where it has more

/// What the errors of a piece of K cost, from the token's own queries: e' (diag(w) + D D') e.
struct ErrorCost {
  float w[kMaxRotation];                   ///< of a channel, before the rotation
  float dir[kMaxRotation][kShapeQueries];  ///< D, rotated; columns beyond the queries are 0
};

/// w: root mean square of a channel over the queries, relative to the piece, and a floor. D: the
/// queries, of the same weight together as their piece has channels. q [n_q][dim] at the piece's
/// first channel.
[[gnu::always_inline]] inline void error_cost(const float* q, int64_t n_q, int64_t dim, int64_t n,
                                              ErrorCost& cost) {
  constexpr float kFloor = 0.3f;
  float total = 0.0f, chosen = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int64_t h = 0; h < n_q; ++h) sum += q[h * dim + i] * q[h * dim + i];
    cost.w[i] = sum;
    total += sum;
  }
  const float inv = total > 0.0f ? static_cast<float>(n) / total : 0.0f;
  for (int64_t i = 0; i < n; ++i) cost.w[i] = __builtin_sqrtf(cost.w[i] * inv) + kFloor;
  std::memset(cost.dir, 0, sizeof cost.dir);
  const int64_t step = (n_q + kShapeQueries - 1) / kShapeQueries;
  for (int64_t h = 0; h < n_q; h += step) {
    float turned[kMaxRotation];
    rotate_kv(q + h * dim, n, turned);
    for (int64_t i = 0; i < n; ++i) {
      cost.dir[i][h / step] = turned[i];
      chosen += turned[i] * turned[i];
    }
  }
  const float size = chosen > 0.0f ? __builtin_sqrtf(static_cast<float>(n) / chosen) : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t l = 0; l < kShapeQueries; ++l) cost.dir[i][l] *= size;
  }
}

[[gnu::always_inline]] inline float dot_queries(const float* a, const float* b) {
  float t[kShapeQueries];
  for (int64_t l = 0; l < kShapeQueries; ++l) t[l] = a[l] * b[l];
  return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

/// Rounds the levels of a q4_0 piece again so that its errors fall where queries care little. With
/// e the errors in the rotated space it lessens  e' M e,  M = H diag(w) H + D D', level by level
/// from the nearest ones on; H diag(w) H [i][j] = m[i ^ j], m = H w / sqrt(n). The queries of a
/// model's head have much the same large channels at all tokens, and in the slowly turning ones the
/// same direction, so that those of the token itself tell. Scales and format stay. Source: rounding
/// by second-order weights, one coordinate at a time, as OBQ (arXiv:2208.11580) does for weights.
/// Measured: tests/golden/smollm2_test.cpp.
[[gnu::always_inline]] inline void shape_errors(const float* x, const ErrorCost& cost, int64_t n,
                                                KvPiece& p) {
  constexpr int kPasses = 3;
  float m[kMaxRotation] = {}, g[kMaxRotation] = {}, d[kMaxRotation];
  float along[kShapeQueries] = {};  // D' e
  float step_of[kMaxRotation];      // levels by which a gradient of 1 moves
  float moved[8][kMaxRotation];     // moved[r][i] = m[i ^ r]
  rotate_kv(cost.w, n, m);
  const float norm = n == 32 ? 0.17677669529663687f : n == 64 ? 0.125f : 0.08838834764831845f;
  for (int64_t i = 0; i < n; ++i) m[i] *= norm;
  for (int64_t i = 0; i < n; ++i) {
    d[i] = f32_from_f16(p.d[i / kKvGroup]);
    g[i] = static_cast<float>(p.q[i]) * d[i] - x[i];
    for (int64_t l = 0; l < kShapeQueries; ++l) along[l] += cost.dir[i][l] * g[i];
  }
  rotate_kv(g, n, g);
  for (int64_t i = 0; i < n; ++i) g[i] *= cost.w[i];
  rotate_kv(g, n, g);
  float finite = m[0];
  for (int64_t i = 0; i < n; ++i) finite += g[i] * 0.0f;
  for (int64_t l = 0; l < kShapeQueries; ++l) finite += along[l] * 0.0f;
  if (!(finite > 0.0f && finite < 0x1p100f)) return;  // NaN or infinity in x, d or the queries
  for (int64_t i = 0; i < n; ++i) {
    const float curve = m[0] + dot_queries(cost.dir[i], cost.dir[i]);
    step_of[i] = d[i] != 0.0f ? 1.0f / (curve * d[i]) : 0.0f;
  }
  for (int64_t r = 0; r < 8; ++r) {
    for (int64_t i = 0; i < n; ++i) moved[r][i] = m[i ^ r];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int64_t j = 0; j < n; ++j) {
      const auto old = static_cast<float>(p.q[j]);
      const float slope = g[j] + dot_queries(along, cost.dir[j]);
      const float level = nearest_level(old - slope * step_of[j], -8.0f, 7.0f);
      if (level == old) continue;
      const float change = (level - old) * d[j];
      p.q[j] = static_cast<int8_t>(level);
      for (int64_t l = 0; l < kShapeQueries; ++l) along[l] += cost.dir[j][l] * change;
      for (int64_t i = 0; i < n; i += 8) {
        const float* row = moved[j & 7] + (i ^ (j & ~int64_t{7}));
        for (int64_t l = 0; l < 8; ++l) g[i + l] += row[l] * change;
      }
    }
  }
}

/// What a K row is rounded with: the rows [n_q][dim] of the queries that read it, nullptr for none.
struct KvQueries {
  const float* q = nullptr;
  int64_t n_q = 0;
};

/// Rotates and rounds one row of a head, piece by piece: fn(first dim, length, piece).
template <KvType T, class Fn>
[[gnu::always_inline]] inline void quantise_row(const float* src, int64_t dim,
                                                const KvQueries& queries, const Fn& fn) {
  const int64_t n = rotation_len(dim);
  for (int64_t at = 0; at < dim; at += n) {
    float x[kMaxRotation];
    rotate_kv(src + at, n, x);
    KvPiece piece;
    for (int64_t i = 0; i < n; i += kKvGroup) {
      quantise_group<T>(x + i, piece.q + i, piece.d + i / kKvGroup);
    }
    if (T == KvType::kQ4_0 && queries.q != nullptr) {
      ErrorCost cost;
      error_cost(queries.q + at, queries.n_q, dim, n, cost);
      shape_errors(x, cost, n, piece);
    }
    fn(at, n, piece);
  }
}

/// A K row of one head into its column of the tile. `tile`: the head's part of the block.
template <KvType T>
[[gnu::always_inline]] inline void store_k_quant(const float* src, int64_t dim,
                                                 const KvQueries& queries, std::byte* tile,
                                                 int64_t t) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv_scales_at(T, dim));
  quantise_row<T>(src, dim, queries, [&](int64_t at, int64_t n, const KvPiece& p) {
    for (int64_t i = 0; i < n; i += kKvGroup) {
      scales[(at + i) / kKvGroup * kBlockTok + t] = p.d[i / kKvGroup];
    }
    if constexpr (T == KvType::kQ8_0) {
      for (int64_t i = 0; i < n; ++i) {
        tile[(at + i) * kBlockTok + t] = static_cast<std::byte>(p.q[i]);
      }
    } else {
      for (int64_t i = 0; i < n; i += 2) {
        tile[(at + i) / 2 * kBlockTok + t] =
            static_cast<std::byte>((p.q[i] + 8) | ((p.q[i + 1] + 8) << 4));
      }
    }
  });
}

/// A V row of one head into its row of the tile.
template <KvType T>
[[gnu::always_inline]] inline void store_v_quant(const float* src, int64_t dim, std::byte* tile,
                                                 int64_t t) {
  constexpr int64_t kHalf = kKvGroup / 2;
  uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv_scales_at(T, dim));
  quantise_row<T>(src, dim, {}, [&](int64_t at, int64_t n, const KvPiece& p) {
    for (int64_t i = 0; i < n; i += kKvGroup) {
      scales[(at + i) / kKvGroup * kBlockTok + t] = p.d[i / kKvGroup];
      if constexpr (T == KvType::kQ8_0) {
        std::memcpy(tile + t * dim + at + i, p.q + i, kKvGroup);
      } else {
        for (int64_t j = 0; j < kHalf; ++j) {
          tile[(t * dim + at + i) / 2 + j] =
              static_cast<std::byte>((p.q[i + j] + 8) | ((p.q[i + j + kHalf] + 8) << 4));
        }
      }
    }
  });
}

}  // namespace infer::kern
