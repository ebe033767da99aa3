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

/// kKvGroup elements of one token and head: x[i] = f16(d) * q[i].
struct KvGroup {
  int8_t q[kKvGroup];  ///< q8_0: -127..127; q4_0: -8..7
  uint16_t d;          ///< half bits; NaN when an element is no finite number
};

/// Levels by the scale as it is stored, nearest, ties to even.
template <KvType T>
[[gnu::always_inline]] inline void quantise_kv(const float* x, KvGroup& g) {
  constexpr float kTop = T == KvType::kQ8_0 ? 127.0f : 7.0f;
  constexpr float kBottom = T == KvType::kQ8_0 ? -127.0f : -8.0f;
  uint32_t max_bits = 0;  // magnitudes order like their bits; NaN and inf come out on top
  float extreme = 0.0f;
  for (int i = 0; i < kKvGroup; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    extreme = bits > max_bits ? x[i] : extreme;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  std::memset(&g, 0, sizeof(g));
  // q4_0 gives its ninth level on one side to the element of largest magnitude, as the weights do.
  const float wanted =
      T == KvType::kQ8_0 ? std::bit_cast<float>(max_bits) / 127.0f : extreme / -8.0f;
  g.d = f16_from_f32(wanted);
  if ((g.d & 0x7c00u) == 0x7c00u) {
    g.d = 0x7e00u;
    return;
  }
  const float d = f32_from_f16(g.d);
  if (d == 0.0f) return;
  const float inv = 1.0f / d;
  for (int i = 0; i < kKvGroup; ++i) {
    float v = x[i] * inv;
    v = v < kBottom ? kBottom : (v > kTop ? kTop : v);
    g.q[i] = static_cast<int8_t>((v + 0x1.8p23f) - 0x1.8p23f);
  }
}

/// A K row of one head into its column of the tile. `tile`: the head's part of the block.
template <KvType T>
[[gnu::always_inline]] inline void store_k_quant(const float* src, int64_t dim, std::byte* tile,
                                                 int64_t t) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv_scales_at(T, dim));
  float rotated[kMaxRotation];
  const int64_t n_rotated = rotation_len(dim);
  for (int64_t i = 0; i < dim / kKvGroup; ++i) {
    const int64_t in_piece = i * kKvGroup % n_rotated;
    if (in_piece == 0) rotate_kv(src + i * kKvGroup, n_rotated, rotated);
    KvGroup g;
    quantise_kv<T>(rotated + in_piece, g);
    scales[i * kBlockTok + t] = g.d;
    for (int64_t j = 0; j < kKvGroup; ++j) {
      const int64_t d = i * kKvGroup + j;
      if constexpr (T == KvType::kQ8_0) {
        tile[d * kBlockTok + t] = static_cast<std::byte>(g.q[j]);
      } else if (j % 2 == 0) {
        tile[d / 2 * kBlockTok + t] =
            static_cast<std::byte>((g.q[j] + 8) | ((g.q[j + 1] + 8) << 4));
      }
    }
  }
}

/// A V row of one head into its row of the tile.
template <KvType T>
[[gnu::always_inline]] inline void store_v_quant(const float* src, int64_t dim, std::byte* tile,
                                                 int64_t t) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv_scales_at(T, dim));
  float rotated[kMaxRotation];
  const int64_t n_rotated = rotation_len(dim);
  for (int64_t i = 0; i < dim / kKvGroup; ++i) {
    const int64_t in_piece = i * kKvGroup % n_rotated;
    if (in_piece == 0) rotate_kv(src + i * kKvGroup, n_rotated, rotated);
    KvGroup g;
    quantise_kv<T>(rotated + in_piece, g);
    scales[i * kBlockTok + t] = g.d;
    if constexpr (T == KvType::kQ8_0) {
      std::memcpy(tile + t * dim + i * kKvGroup, g.q, kKvGroup);
    } else {
      for (int64_t j = 0; j < kKvGroup / 2; ++j) {
        tile[t * dim / 2 + i * kKvGroup / 2 + j] =
            static_cast<std::byte>((g.q[j] + 8) | ((g.q[j + kKvGroup / 2] + 8) << 4));
      }
    }
  }
}

}  // namespace infer::kern
