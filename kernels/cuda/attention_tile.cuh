#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <climits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.cuh"

/// What the decode and the prefill kernel share: which slots a row sees, logits and the running
/// softmax of a tile of scores, values of a pool as 16-bit words, the Hadamard rotation.
///
/// A warp works on 16 rows at once, of which a lane has two: g = lane / 4 and g + 8. Scores s[i][.]
/// are accumulators of mma (ptx.cuh): s[i][0..1] row g, tokens 8 i + 2 t and the next, t = lane %
/// 4; s[i][2..3] row g + 8. Exponentials are base 2: queries are multiplied by log2(e) at the
/// start.
namespace infer::cuda::attention {

inline constexpr int kWarps = 4, kThreads = kWarps * kWarp;
inline constexpr float kLog2e = 1.44269504088896341f;
inline constexpr float kNoLogit = -INFINITY;

INFER_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
INFER_DEVICE int larger(int a, int b) { return a > b ? a : b; }
INFER_DEVICE int clamp_to(int x, int low, int high) { return smaller(larger(x, low), high); }

// --- 16-bit elements ----------------------------------------------------------------------------

template <class Pair>
INFER_DEVICE uint32_t as_bits(const Pair& x) {
  static_assert(sizeof x == sizeof(uint32_t));
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
INFER_DEVICE __half2 as_half2(uint32_t bits) {
  return __half2(__ushort_as_half(static_cast<unsigned short>(bits)),
                 __ushort_as_half(static_cast<unsigned short>(bits >> 16)));
}

template <bool kBf16>
INFER_DEVICE uint32_t pack(float low, float high) {
  if constexpr (kBf16)
    return as_bits(__floats2bfloat162_rn(low, high));
  else
    return as_bits(__floats2half2_rn(low, high));
}
INFER_DEVICE uint32_t pack(bool bf16, float low, float high) {
  return bf16 ? pack<true>(low, high) : pack<false>(low, high);
}

template <bool kBf16>
INFER_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kBf16)
    mma_bf16(d, a, b);
  else
    mma_f16(d, a, b);
}

// --- Reading the pool ---------------------------------------------------------------------------

/// How a head of a block lies (args.h). The nibbles of q4_0: dims 2i and 2i + 1 share a byte in K,
/// elements i and i + 16 of a group in V.
enum class Plane { k16Bit, kQ8, kQ4Pairs, kQ4Halves };

INFER_DEVICE bool is_quantised(DType type) { return type == DType::kQ8_0 || type == DType::kQ4_0; }

/// (level - bias) * scale for two levels that stand in the low bytes of the halves of `levels`. The
/// difference is exact, the product rounded once.
INFER_DEVICE uint32_t scaled_levels(uint32_t levels, float bias, __half2 scale) {
  const uint32_t bits = levels | 0x64006400u;  // as f16: 1024 + level
  const __half2 x = __hsub2(as_half2(bits), __float2half2_rn(1024.0f + bias));
  return as_bits(__hmul2(x, scale));
}

/// Words of 4 dims from four levels, a byte each.
INFER_DEVICE void scaled_bytes(uint32_t levels, float bias, __half2 scale, uint32_t* out) {
  out[0] = scaled_levels((levels & 0xffu) | (levels & 0xff00u) << 8, bias, scale);
  out[1] = scaled_levels((levels >> 16 & 0xffu) | (levels >> 24) << 16, bias, scale);
}

/// kN dims (a multiple of kN) of one token, two a word; quantised ones become f16.
template <Plane kPlane, int kDim, int kN>
INFER_DEVICE void read_values(const std::byte* head, int token, int dim, uint32_t (&out)[kN / 2]) {
  if constexpr (kPlane == Plane::k16Bit) {
    const std::byte* at = head + 2 * (token * kDim + dim);
    if constexpr (kN == 8) {
      const uint4 w = load_readonly<uint4>(at);
      out[0] = w.x, out[1] = w.y, out[2] = w.z, out[3] = w.w;
    } else if constexpr (kN == 4) {
      const uint2 w = load_readonly<uint2>(at);
      out[0] = w.x, out[1] = w.y;
    } else {
      out[0] = load_readonly<uint32_t>(at);
    }
  } else {
    static_assert(kN >= 4 && kDim % 32 == 0);
    constexpr DType kType = kPlane == Plane::kQ8 ? DType::kQ8_0 : DType::kQ4_0;
    const __half2 scale = __half2half2(load_readonly<__half>(head + kv_scales_at(kType, kDim) +
                                                             2 * (token * (kDim / 32) + dim / 32)));
    if constexpr (kPlane == Plane::kQ4Pairs) {
      static_assert(kN == 8);
      const auto w = load_readonly<uint32_t>(head + (token * kDim + dim) / 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t pair = w >> 8 * i;
        out[i] = scaled_levels((pair & 0xfu) | (pair & 0xf0u) << 12, 8.0f, scale);
      }
    } else {
      const int at =
          kPlane == Plane::kQ8 ? token * kDim + dim : (token * kDim + dim / 32 * 32) / 2 + dim % 16;
      uint32_t w[kN / 4];
      if constexpr (kN == 8) {
        const uint2 both = load_readonly<uint2>(head + at);
        w[0] = both.x, w[1] = both.y;
      } else {
        w[0] = load_readonly<uint32_t>(head + at);
      }
#pragma unroll
      for (int i = 0; i < kN / 4; ++i) {
        const uint32_t levels =
            kPlane == Plane::kQ8 ? w[i] ^ 0x80808080u : w[i] >> dim % 32 / 16 * 4 & 0x0f0f0f0fu;
        scaled_bytes(levels, kPlane == Plane::kQ8 ? 128.0f : 8.0f, scale, &out[2 * i]);
      }
    }
  }
}

// --- What a row sees ----------------------------------------------------------------------------

/// Where a lane's row comes from, and the last slot it sees; row < 0: none, which sees nothing.
struct RowView {
  int row = -1, head = 0;
  int last = -1;
};

INFER_DEVICE int first_slot(const AttentionArgs& a, int last) {
  return a.window > 0 ? larger(last - a.window + 1, 0) : 0;
}

/// Does the row see each of the slots t0 .. t0 + n - 1? (Rows in a tree: not known.)
INFER_DEVICE bool sees_all(const AttentionArgs& a, const RowView& v, int t0, int n) {
  return a.tree == nullptr && t0 >= first_slot(a, v.last) && t0 + n - 1 <= v.last;
}

/// Scores of slots that the row does not see become kNoLogit; x[0], x[1] of tile i are slots t0 + 8
/// i and the next.
template <int kN>
INFER_DEVICE void mask_row(const AttentionArgs& a, const RowView& v, int t0, int r,
                           float (&s)[kN][4]) {
  const int first = first_slot(a, v.last);
  const bool branches = a.tree != nullptr && v.row >= 0;
  const int tree_begin = branches ? a.rows.slot[a.tree_first[v.row]] : INT_MAX;
  const uint64_t tree = branches ? a.tree[v.row] : 0;
#pragma unroll
  for (int i = 0; i < 2 * kN; ++i) {
    const int slot = t0 + i / 2 * 8 + i % 2;
    bool sees = slot >= first && slot <= v.last;
    if (slot >= tree_begin)
      sees = sees && slot - tree_begin < 64 && (tree >> ((slot - tree_begin) & 63) & 1) != 0;
    if (!sees) s[i / 2][2 * r + i % 2] = kNoLogit;
  }
}

// --- Softmax ------------------------------------------------------------------------------------

/// By what queries are multiplied before they are rounded to 16 bits: the exponent of the
/// exponential comes out, or that of tanh where logits are capped.
INFER_DEVICE float query_scale(const AttentionArgs& a) {
  return (a.softcap > 0.0f ? 2.0f * a.scale / a.softcap : a.scale) * kLog2e;
}

/// Running maximum of two rows, and the lane's share of their sums.
struct Softmax {
  float max[2] = {kNoLogit, kNoLogit};
  float sum[2] = {0.0f, 0.0f};
};

/// Maximum to subtract: 0 for a row that has seen nothing, so that its weights are 0, not NaN.
INFER_DEVICE float finite_max(float max) { return max == kNoLogit ? 0.0f : max; }

/// The four lanes of a row, which get the same bits.
INFER_DEVICE float row_max(float x) {
  x = fmaxf(x, shfl_xor(x, 1));
  return fmaxf(x, shfl_xor(x, 2));
}
INFER_DEVICE float row_sum(float x) {
  x = add_rn(x, shfl_xor(x, 1));
  return add_rn(x, shfl_xor(x, 2));
}

/// Scores of the tokens from t0 on become weights exp2(logit - max); `shrink` is what weights of
/// before have to be multiplied by. `masked`: some row does not see all of them. A row that sees
/// none keeps its state, with a shrink of exactly 1 (0 while it has seen nothing: 0 either way).
template <int kN>
INFER_DEVICE void soften(const AttentionArgs& a, const RowView (&row)[2], int t0, bool masked,
                         float (&s)[kN][4], Softmax& state, float (&shrink)[2]) {
  t0 += lane_id() % 4 * 2;
  if (a.softcap > 0.0f) {  // cap * tanh(x) = cap * (1 - 2 / (exp(2x) + 1))
    const float cap = a.softcap * kLog2e;
#pragma unroll
    for (int i = 0; i < 4 * kN; ++i) {
      float& x = s[i / 4][i % 4];
      x = cap * (1.0f - 2.0f / (exp2_approx(x) + 1.0f));
    }
  }
  if (a.alibi_slopes != nullptr) {
    const float slope[2] = {a.alibi_slopes[row[0].head] * kLog2e,
                            a.alibi_slopes[row[1].head] * kLog2e};
#pragma unroll
    for (int i = 0; i < 4 * kN; ++i) {
      const int r = i % 4 / 2;
      s[i / 4][i % 4] += slope[r] * static_cast<float>(t0 + i / 4 * 8 + i % 2 - row[r].last);
    }
  }
  if (masked) {
    mask_row(a, row[0], t0, 0, s);
    mask_row(a, row[1], t0, 1, s);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float max = kNoLogit, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kN; ++i) max = fmaxf(max, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
    max = fmaxf(state.max[r], row_max(max));
    const float base = finite_max(max);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      // Rounded alike whether or not a neighbour made the tile a masked one.
      s[i][2 * r] = exp2_approx(add_rn(s[i][2 * r], -base));
      s[i][2 * r + 1] = exp2_approx(add_rn(s[i][2 * r + 1], -base));
      sum += s[i][2 * r] + s[i][2 * r + 1];
    }
    shrink[r] = exp2_approx(state.max[r] - base);
    state.max[r] = max;
    state.sum[r] = state.sum[r] * shrink[r] + sum;
  }
}

/// Weights of 16 tokens, from score tiles 2 * step and the next, as the left operand of mma.
template <bool kBf16, int kN>
INFER_DEVICE void weights_of(const float (&s)[kN][4], int step, uint32_t (&p)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* x = &s[2 * step + i / 2][i % 2 * 2];
    p[i] = pack<kBf16>(x[0], x[1]);
  }
}

// --- Hadamard rotation --------------------------------------------------------------------------

/// Turns a row back that was stored rotated (kernels/cpu/generic/kv_quant.h): lane l has dims l +
/// 32 i in x[i]. By the full warp.
template <int kDim>
INFER_DEVICE void rotate_row(float (&x)[kDim / 32]) {
  constexpr int kAligned = kDim & -kDim, kPiece = kAligned < 128 ? kAligned : 128;
#pragma unroll
  for (int half = 1; half < kWarp; half *= 2) {
    const float sign = (lane_id() & half) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) x[i] = shfl_xor(x[i], half) + sign * x[i];
  }
#pragma unroll
  for (int half = 1; half < kPiece / 32; half *= 2) {
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      if ((i & half) != 0) continue;
      const float a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  const float norm = kPiece == 32   ? 0.17677669529663687f
                     : kPiece == 64 ? 0.125f
                                    : 0.08838834764831845f;
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i) x[i] *= norm;
}

/// Stores a row of which lane l has dims l + 32 i in x[i]. By the full warp.
template <int kDim>
INFER_DEVICE void store_row(bool rotated, float (&x)[(kDim + 31) / 32], float* out) {
  if constexpr (kDim % 32 == 0) {
    if (rotated) rotate_row<kDim>(x);
  }
#pragma unroll
  for (int i = 0; i < (kDim + 31) / 32; ++i)
    if (lane_id() + 32 * i < kDim) out[lane_id() + 32 * i] = x[i];
}

}  // namespace infer::cuda::attention
