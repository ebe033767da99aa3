#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/checked.h"
#include "core/base/half.h"
#include "kernels/cpu/generic/kv_quant.h"
#include "kernels/cpu/generic/nonlinear.h"

/// FlashAttention over a paged pool: a running softmax over tiles of kBlockTok slots, spans of
/// kSpanSlots merged left to right. Order of one (row, head, span), whoever else is in the call:
/// tiles left to right; in a tile, q.k over d in sequence, the maximum, one rescale of sum and acc,
/// then for each visible slot in sequence sum += p and acc[d] += p * v[d]. A tile that a row does
/// not see is not touched for that row. A span starts empty and is merged by attn_merge. Source:
/// FlashAttention-2, arXiv:2307.08691, Algorithm 1; running max and sum, arXiv:1805.02867.
namespace infer::kern::generic {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

void load_f16(const std::byte* src, int64_t n, float* dst) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, src + i * 2, 2);
    dst[i] = f32_from_f16(h);
  }
}

/// Level of dim d of token t in a quantised tile of one head.
int level_at(const std::byte* tile, KvType type, bool is_k, int64_t dim, int64_t d, int64_t t) {
  if (type == KvType::kQ8_0) {
    return static_cast<int8_t>(tile[is_k ? d * kBlockTok + t : t * dim + d]);
  }
  const int64_t group = d / kKvGroup * kKvGroup, i = d % kKvGroup, half = kKvGroup / 2;
  const int64_t byte = is_k ? d / 2 * kBlockTok + t : (t * dim + group) / 2 + i % half;
  const int shift = (is_k ? d % 2 != 0 : i >= half) ? 4 : 0;
  return ((static_cast<int>(tile[byte]) >> shift) & 15) - 8;
}

/// One head of a block to f32: K as [dim][kBlockTok], V as [kBlockTok][dim]. Exact for every type.
void load_tile(const std::byte* src, KvType type, bool is_k, int64_t dim, float* dst) {
  const int64_t n = dim * kBlockTok;
  if (type == KvType::kF32) {
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  if (type == KvType::kF16) return load_f16(src, n, dst);
  const std::byte* scales = src + kv_scales_at(type, dim);
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t t = 0; t < kBlockTok; ++t) {
      uint16_t scale;
      std::memcpy(&scale, scales + (d / kKvGroup * kBlockTok + t) * 2, 2);
      dst[is_k ? d * kBlockTok + t : t * dim + d] =
          f32_from_f16(scale) * static_cast<float>(level_at(src, type, is_k, dim, d, t));
    }
  }
}

/// Slots [lo, hi) that a row sees.
struct Range {
  int64_t lo, hi;
};

Range visible(const AttnArgs& a, int64_t row) {
  const int64_t slot = a.q_slot[row];
  const int64_t lo = a.window > 0 && slot >= a.window ? slot - a.window + 1 : 0;
  return {lo, slot + 1};
}

void clear_partial(float* partial, int64_t head_dim_v) {
  partial[0] = -kInf;
  for (int64_t i = 0; i < head_dim_v + 1; ++i) partial[1 + i] = 0.0f;
}

/// The part of a call's scratch.
struct Scratch {
  float* k_tile;  ///< [head_dim][kBlockTok]
  float* v_tile;  ///< [kBlockTok][head_dim_v]
  float* spans;   ///< [attn_rows][group][2 + head_dim_v]
  float* q;       ///< [n_rows][group][head_dim], rotated; unused where K is not quantised
};

Scratch split_scratch(const AttnArgs& a) {
  Scratch s;
  s.k_tile = reinterpret_cast<float*>(a.scratch);
  s.v_tile = s.k_tile + a.pool.head_dim * kBlockTok;
  s.spans = s.v_tile + a.pool.head_dim_v * kBlockTok;
  const int64_t group = a.n_head / a.pool.n_kv_head;
  s.q = s.spans + attn_rows(group) * group * (2 + a.pool.head_dim_v);
  return s;
}

void rotate_queries(const AttnArgs& a, float* out) {
  const int64_t group = a.n_head / a.pool.n_kv_head, dim = a.pool.head_dim;
  for (int64_t row = 0; row < a.n_rows; ++row) {
    const float* q = a.q + row * a.q_stride + a.kv_head * group * dim;
    for (int64_t h = 0; h < group; ++h, out += dim) rotate_kv(q + h * dim, dim, out);
  }
}

/// Adds slots [begin, end) of the tile in `scratch` to a partial; `head` is the query head, `slot0`
/// the tile's first slot.
void add_tile(const AttnArgs& a, int64_t row, int64_t head, int64_t slot0, int64_t begin,
              int64_t end, const Scratch& scratch, float* partial) {
  const int64_t group = a.n_head / a.pool.n_kv_head;
  const float* q = is_quantised(a.pool.k_type)
                       ? scratch.q + (row * group + head % group) * a.pool.head_dim
                       : a.q + row * a.q_stride + head * a.pool.head_dim;
  const float* k_tile = scratch.k_tile;
  const float* v_tile = scratch.v_tile;
  const int64_t n_v = a.pool.head_dim_v;
  float s[kBlockTok] = {};
  for (int64_t d = 0; d < a.pool.head_dim; ++d) {
    for (int64_t t = 0; t < kBlockTok; ++t) s[t] += q[d] * k_tile[d * kBlockTok + t];
  }
  float max = partial[0];
  for (int64_t t = begin; t < end; ++t) {
    s[t] *= a.scale;
    if (a.softcap != 0.0f) s[t] = a.softcap * std::tanh(s[t] / a.softcap);
    if (a.alibi_slopes)
      s[t] += a.alibi_slopes[head] * static_cast<float>(slot0 + t - a.q_slot[row]);
    if (s[t] > max) max = s[t];
  }
  const float rescale = max == partial[0] ? 1.0f : std::exp(partial[0] - max);
  partial[0] = max;
  float* acc = partial + 2;
  partial[1] *= rescale;
  for (int64_t d = 0; d < n_v; ++d) acc[d] *= rescale;
  for (int64_t t = begin; t < end; ++t) {
    const float p = std::exp(s[t] - max);  // NaN in, NaN out: sum and acc carry it to the output
    partial[1] += p;
    for (int64_t d = 0; d < n_v; ++d) acc[d] += p * v_tile[t * n_v + d];
  }
}

/// Adds the tile of slots [slot0, slot0 + kBlockTok) to every row that sees some of it.
void add_tile_to_rows(const AttnArgs& a, int64_t slot0, const Scratch& scratch) {
  const int64_t group = a.n_head / a.pool.n_kv_head;
  bool loaded = false;
  for (int64_t row = 0; row < a.n_rows; ++row) {
    const Range r = visible(a, row);
    const int64_t begin = r.lo > slot0 ? r.lo - slot0 : 0;
    const int64_t end = r.hi - slot0 < kBlockTok ? r.hi - slot0 : kBlockTok;
    if (begin >= end) continue;
    if (!loaded) {
      const int64_t block = a.block_table[slot0 / kBlockTok];
      const KvPoolView& p = a.pool;
      load_tile(p.k + block * k_block_bytes(p) + a.kv_head * kv_head_bytes(p.k_type, p.head_dim),
                p.k_type, true, p.head_dim, scratch.k_tile);
      load_tile(p.v + block * v_block_bytes(p) + a.kv_head * kv_head_bytes(p.v_type, p.head_dim_v),
                p.v_type, false, p.head_dim_v, scratch.v_tile);
      loaded = true;
    }
    for (int64_t h = 0; h < group; ++h) {
      add_tile(a, row, a.kv_head * group + h, slot0, begin, end, scratch,
               scratch.spans + (row * group + h) * (2 + a.pool.head_dim_v));
    }
  }
}

}  // namespace

int64_t attn_scratch_bytes(int64_t n_head, int64_t n_kv_head, int64_t head_dim,
                           int64_t head_dim_v) {
  const int64_t group = n_head / n_kv_head;
  const int64_t n_float =
      (head_dim + head_dim_v) * kBlockTok + attn_rows(group) * group * (2 + head_dim_v + head_dim);
  return align_up<int64_t>(n_float * static_cast<int64_t>(sizeof(float)), 64);
}

void attn_spans(const AttnArgs& a) {
  const int64_t group = a.n_head / a.pool.n_kv_head;
  const int64_t n_v = a.pool.head_dim_v;
  const int64_t size = 2 + n_v;
  const Scratch scratch = split_scratch(a);
  if (is_quantised(a.pool.k_type)) rotate_queries(a, scratch.q);
  for (int64_t row = 0; row < a.n_rows; ++row) {
    for (int64_t h = 0; h < group; ++h) {
      clear_partial(a.partial + row * a.partial_row_stride + h * size, n_v);
    }
  }
  int64_t last = 0;  // no row sees a slot from here on
  for (int64_t row = 0; row < a.n_rows; ++row) {
    const int64_t hi = visible(a, row).hi;
    last = hi > last ? hi : last;
  }
  for (int64_t span = a.span_begin; span < a.span_end && span * kSpanSlots < last; ++span) {
    for (int64_t i = 0; i < a.n_rows * group; ++i) clear_partial(scratch.spans + i * size, n_v);
    const int64_t end = (span + 1) * kSpanSlots < last ? (span + 1) * kSpanSlots : last;
    for (int64_t slot0 = span * kSpanSlots; slot0 < end; slot0 += kBlockTok) {
      add_tile_to_rows(a, slot0, scratch);
    }
    for (int64_t row = 0; row < a.n_rows; ++row) {
      for (int64_t h = 0; h < group; ++h) {
        attn_merge(a.partial + row * a.partial_row_stride + h * size,
                   scratch.spans + (row * group + h) * size, n_v);
      }
    }
  }
}

void attn_merge(float* left, const float* right, int64_t head_dim_v) {
  // A visible slot adds exp(0) = 1 or NaN to a sum, so only an empty partial has sum 0.
  if (right[1] == 0.0f) return;
  if (left[1] == 0.0f) {
    for (int64_t i = 0; i < head_dim_v + 2; ++i) left[i] = right[i];
    return;
  }
  const float max = left[0] > right[0] ? left[0] : right[0];
  const float scale_left = std::exp(left[0] - max);
  const float scale_right = std::exp(right[0] - max);
  left[0] = max;
  for (int64_t i = 1; i < head_dim_v + 2; ++i) {
    left[i] = left[i] * scale_left + right[i] * scale_right;
  }
}

void attn_finish(const float* partial, int64_t head_dim_v, KvType v_type, float* out) {
  for (int64_t i = 0; i < head_dim_v; ++i) out[i] = partial[2 + i] / partial[1];
  if (is_quantised(v_type)) rotate_kv(out, head_dim_v, out);
}

}  // namespace infer::kern::generic
