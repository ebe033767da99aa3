#pragma once

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/last_block.cuh"

namespace infer::cuda {

namespace attention {

static_assert(kMinPartBlocks == kWarps);

template <int kDim>
struct DecodeStorage {
  uint4 q[kDim / 16][kWarp];  ///< fragments of the queries, a k-step each
  union {
    float o[2][kDim / 2][kWarp];  ///< accumulators of a warp on its way into another
    float out[kDecodeRows][kDim];
  };
  float max[2][2][kWarp], sum[2][2][kWarp];  ///< what goes with o
  float row_max[kDecodeRows], row_sum[kDecodeRows];
  int32_t is_last;
};

/// The lane's first dim of a k-step, and of the two mma operands that it fills with four
/// neighbours. K is read in the order that suits wide loads: a lane takes eight dims of 32 for two
/// steps; the dot product does not mind.
template <int kDim>
INFER_DEVICE int query_dim(int step, int t) {
  return step < kDim / 32 * 2 ? step / 2 * 32 + 8 * t + step % 2 * 4 : step * 16 + 4 * t;
}

template <int kDim>
INFER_DEVICE void load_queries(const AttentionArgs& a, int64_t row, int head, int n_head,
                               uint4 (*q)[kWarp]) {
  const float scale = query_scale(a);
  const bool bf16 = a.pool.type_k == DType::kBF16;
  const float* const from = a.q + (row * a.n_head + head) * kDim;
  for (int i = static_cast<int>(thread_idx().x); i < kDim / 16 * kWarp; i += kThreads) {
    const int lane = i % kWarp, dim = query_dim<kDim>(i / kWarp, lane % 4);
    float4 x[2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (lane / 4 + 8 * r < n_head)
        x[r] = load_readonly<float4>(from + (lane / 4 + 8 * r) * kDim + dim);
    q[i / kWarp][lane] = make_uint4(
        pack(bf16, x[0].x * scale, x[0].y * scale), pack(bf16, x[1].x * scale, x[1].y * scale),
        pack(bf16, x[0].z * scale, x[0].w * scale), pack(bf16, x[1].z * scale, x[1].w * scale));
  }
}

/// Scores of a block's 32 tokens; `lo`..`hi` as offsets in the block: others read the nearest.
template <Plane kPlane, bool kBf16, int kDim>
INFER_DEVICE void scores_of_block(const uint4 (*q)[kWarp], const std::byte* head, int lo, int hi,
                                  float (&s)[4][4]) {
  const int g = lane_id() / 4, t = lane_id() % 4;
  const auto query = [&](int step, uint32_t(&a)[4]) {
    const uint4 w = q[step][lane_id()];
    a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll(kDim == 256 ? 1 : 2)
  for (int c = 0; c < kDim / 32; ++c) {
    uint32_t a0[4], a1[4], k[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      read_values<kPlane, kDim, 8>(head, clamp_to(8 * i + g, lo, hi), 32 * c + 8 * t, k[i]);
    query(2 * c, a0);
    query(2 * c + 1, a1);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      multiply_add<kBf16>(s[i], a0, {k[i][0], k[i][1]});
      multiply_add<kBf16>(s[i], a1, {k[i][2], k[i][3]});
    }
  }
  if constexpr (kDim % 32 == 16) {
    uint32_t a[4];
    query(kDim / 16 - 1, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t k[2];
      read_values<kPlane, kDim, 4>(head, clamp_to(8 * i + g, lo, hi), kDim - 16 + 4 * t, k);
      multiply_add<kBf16>(s[i], a, k);
    }
  }
}

/// Dim of column `column` of accumulator tile j: in a chunk of 64 dims a lane reads eight
/// neighbours of V, so that a column has the dims 8 * column + tile.
template <int kDim>
INFER_DEVICE int output_dim(int j, int column) {
  constexpr int kTail = kDim % 64 / 8;
  return j / 8 < kDim / 64 ? j / 8 * 64 + 8 * column + j % 8
                           : kDim / 64 * 64 + kTail * column + j % 8;
}

/// kN accumulator tiles from kN neighbouring dims a lane, of 16 tokens.
template <Plane kPlane, bool kBf16, int kDim, int kN>
INFER_DEVICE void add_values(const std::byte* head, const int (&token)[4], int dim,
                             const uint32_t (&p)[4], float (*o)[4]) {
  uint32_t v[4][kN / 2];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    read_values<kPlane, kDim, kN>(head, token[i], dim + lane_id() / 4 * kN, v[i]);
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    const int w = j / 2;
    const uint32_t b0 =
        j % 2 == 0 ? (v[0][w] & 0xffffu) | v[1][w] << 16 : v[0][w] >> 16 | (v[1][w] & 0xffff0000u);
    const uint32_t b1 =
        j % 2 == 0 ? (v[2][w] & 0xffffu) | v[3][w] << 16 : v[2][w] >> 16 | (v[3][w] & 0xffff0000u);
    multiply_add<kBf16>(o[j], p, {b0, b1});
  }
}

template <Plane kPlane, bool kBf16, int kDim>
INFER_DEVICE void add_block(const float (&s)[4][4], const std::byte* head, int lo, int hi,
                            float (&o)[kDim / 8][4]) {
  uint32_t p[4], next[4];
  weights_of<kBf16>(s, 0, p);
  weights_of<kBf16>(s, 1, next);
#pragma unroll(kDim >= 128 ? 1 : 2)  // registers are short
  for (int step = 0; step < 2; ++step) {
    int token[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      token[i] = clamp_to(16 * step + i / 2 * 8 + lane_id() % 4 * 2 + i % 2, lo, hi);
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c)
      add_values<kPlane, kBf16, kDim, 8>(head, token, 64 * c, p, &o[8 * c]);
    constexpr int kTail = kDim % 64 / 8;
    if constexpr (kTail > 0)
      add_values<kPlane, kBf16, kDim, kTail>(head, token, kDim / 64 * 64, p, &o[kDim / 64 * 8]);
#pragma unroll
    for (int i = 0; i < 4; ++i) p[i] = next[i];
  }
}

/// Scores and weighted values by the types of the pool: uniform branches.
template <int kDim>
INFER_DEVICE void scores_of_block(DType type, const uint4 (*q)[kWarp], const std::byte* head,
                                  int lo, int hi, float (&s)[4][4]) {
  if constexpr (kDim % 32 == 0) {
    if (type == DType::kQ8_0) return scores_of_block<Plane::kQ8, false, kDim>(q, head, lo, hi, s);
    if (type == DType::kQ4_0)
      return scores_of_block<Plane::kQ4Pairs, false, kDim>(q, head, lo, hi, s);
  }
  if (type == DType::kBF16) return scores_of_block<Plane::k16Bit, true, kDim>(q, head, lo, hi, s);
  scores_of_block<Plane::k16Bit, false, kDim>(q, head, lo, hi, s);
}
template <int kDim>
INFER_DEVICE void add_block(DType type, const float (&s)[4][4], const std::byte* head, int lo,
                            int hi, float (&o)[kDim / 8][4]) {
  if constexpr (kDim % 32 == 0) {
    if (type == DType::kQ8_0) return add_block<Plane::kQ8, false, kDim>(s, head, lo, hi, o);
    if (type == DType::kQ4_0) return add_block<Plane::kQ4Halves, false, kDim>(s, head, lo, hi, o);
  }
  if (type == DType::kBF16) return add_block<Plane::k16Bit, true, kDim>(s, head, lo, hi, o);
  add_block<Plane::k16Bit, false, kDim>(s, head, lo, hi, o);
}

/// Warps hand their accumulators over: 2 and 3 to 0 and 1, then 1 to 0. Room w % 2 is that of warp
/// w, and between the rounds only warp 1 touches room 1, each lane what it wrote itself.
template <int kDim>
INFER_DEVICE void merge_warps(DecodeStorage<kDim>& s, float (&o)[kDim / 8][4], Softmax& state) {
  const int warp = warp_id(), lane = lane_id();
#pragma unroll 1
  for (int half = kWarps / 2; half > 0; half /= 2) {
    if (warp >= half && warp < 2 * half) {
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) s.o[warp % 2][i][lane] = o[i / 4][i % 4];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        s.max[warp % 2][r][lane] = state.max[r];
        s.sum[warp % 2][r][lane] = state.sum[r];
      }
    }
    sync_threads();  // what was handed over is there
    if (warp >= half) continue;
    const int room = (warp + half) % 2;
    float mine[2], other[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float max = fmaxf(state.max[r], s.max[room][r][lane]), base = finite_max(max);
      mine[r] = exp2_approx(state.max[r] - base);
      other[r] = exp2_approx(s.max[room][r][lane] - base);
      state.max[r] = max;
      state.sum[r] = state.sum[r] * mine[r] + s.sum[room][r][lane] * other[r];
    }
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) {
      float& x = o[i / 4][i % 4];
      x = x * mine[i % 4 / 2] + s.o[room][i][lane] * other[i % 4 / 2];
    }
  }
}

/// Warp 0 lays the block's sums out as rows, not divided yet.
template <int kDim>
INFER_DEVICE void stage_rows(DecodeStorage<kDim>& s, const float (&o)[kDim / 8][4],
                             const Softmax& state) {
  const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    s.row_max[g + 8 * r] = state.max[r];  // four lanes write the same
    s.row_sum[g + 8 * r] = row_sum(state.sum[r]);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      s.out[g + 8 * r][output_dim<kDim>(j, 2 * t)] = o[j][2 * r];
      s.out[g + 8 * r][output_dim<kDim>(j, 2 * t + 1)] = o[j][2 * r + 1];
    }
  }
}

/// Parts of a (row of the launch, head): out [m, n_head, n_split, kDim], then {max, sum} [m,
/// n_head, n_split].
struct Partials {
  float* out;
  float2* stats;
};
INFER_DEVICE Partials partials_of(const AttentionDecodeArgs& p, int kDim, int head) {
  const int n_head = p.attention.n_head;
  const int64_t all = int64_t{grid_dim().z} * n_head * p.n_split;
  const int64_t at = (int64_t{block_idx().z} * n_head + head) * p.n_split;
  return {p.partial + at * kDim, reinterpret_cast<float2*>(p.partial + all * kDim) + at};
}

/// Merges the parts of a head in their order; a lane has the stats of parts lane, lane + 32, ... By
/// a full warp.
template <int kDim>
INFER_DEVICE void merge_parts(const AttentionDecodeArgs& p, int64_t row, int head, int n_part) {
  const Partials parts = partials_of(p, kDim, head);
  float max = kNoLogit, sum = 0.0f;
  for (int i = lane_id(); i < n_part; i += kWarp) max = fmaxf(max, parts.stats[i].x);
  const float base = finite_max(warp_max(max));
  float x[(kDim + 31) / 32] = {};
  for (int first = 0; first < n_part; first += kWarp) {
    float2 stats = make_float2(kNoLogit, 0.0f);
    if (first + lane_id() < n_part) stats = parts.stats[first + lane_id()];
    const float mine = exp2_approx(stats.x - base);
    sum += mine * stats.y;
    const int n = smaller(n_part - first, kWarp);
#pragma unroll 4
    for (int i = 0; i < n; ++i) {
      const float weight = shfl(mine, i);
#pragma unroll
      for (int d = 0; d < (kDim + 31) / 32; ++d)
        if (lane_id() + 32 * d < kDim)
          x[d] += weight * parts.out[(first + i) * kDim + lane_id() + 32 * d];
    }
  }
  sum = warp_sum(sum);
  const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
  for (int d = 0; d < (kDim + 31) / 32; ++d) x[d] *= inverse;
  const AttentionArgs& a = p.attention;
  store_row<kDim>(is_quantised(a.pool.type_v), x, a.out + (row * a.n_head + head) * kDim);
}

/// The part's rows from shared memory into `out`, or as a part into `partial`. By all warps.
template <int kDim>
INFER_DEVICE void store_part(const AttentionDecodeArgs& p, const DecodeStorage<kDim>& s,
                             int64_t row, int head, int n_head, int part, bool only) {
  const AttentionArgs& a = p.attention;
#pragma unroll 1
  for (int h = warp_id(); h < n_head; h += kWarps) {
    const float factor = !only ? 1.0f : s.row_sum[h] > 0.0f ? 1.0f / s.row_sum[h] : 0.0f;
    float x[(kDim + 31) / 32];
#pragma unroll
    for (int d = 0; d < (kDim + 31) / 32; ++d)
      x[d] = lane_id() + 32 * d < kDim ? s.out[h][lane_id() + 32 * d] * factor : 0.0f;
    if (only) {
      store_row<kDim>(is_quantised(a.pool.type_v), x, a.out + (row * a.n_head + head + h) * kDim);
      continue;
    }
    const Partials parts = partials_of(p, kDim, head + h);
    store_row<kDim>(false, x, parts.out + int64_t{part} * kDim);
    if (lane_id() == 0) parts.stats[part] = make_float2(s.row_max[h], s.row_sum[h]);
  }
}

/// What a row sees, cut into parts: runs of whole KV blocks, a multiple of kMinPartBlocks.
struct DecodeParts {
  int first, last;  ///< slots
  int n_block;      ///< KV blocks of a part
  int n;
};
INFER_DEVICE DecodeParts parts_of_row(const AttentionDecodeArgs& p, int row) {
  const int last = p.attention.rows.slot[row], first = first_slot(p.attention, last);
  const int n_block = last / kBlockTok + 1 - first / kBlockTok, step = p.n_split * kMinPartBlocks;
  const int part = (n_block + step - 1) / step * kMinPartBlocks;
  return {first, last, part, (n_block + part - 1) / part};
}

}  // namespace attention

/// Attention of one row and the heads that share a KV head, over each n_block-th part of what the
/// row sees: runs of whole KV blocks, a multiple of kMinPartBlocks; surplus blocks end at once.
/// Warps take a part's KV blocks in turn and keep everything in registers; the heads are the rows
/// of mma. Grid (n_block, n_kv_head * chunks of heads, rows from first_row on); kThreads threads.
/// Bytes: K and V of the row's slots once a KV head (and chunk of 16 heads), q and out once, and
/// twice 4 (kDim + 2) a head and part.
/// Source: flash-decoding; the last block of a row to end merges, by a counter that returns to
/// zero.
template <int kDim>
__global__ void __launch_bounds__(attention::kThreads, attention::decode_occupancy(kDim))
    attention_decode_part(const __grid_constant__ AttentionDecodeArgs p,
                          const __grid_constant__ int first_row) {
  using namespace attention;
  const AttentionArgs& a = p.attention;
  auto& s = shared<DecodeStorage<kDim>>();
  const int row = first_row + static_cast<int>(block_idx().z);
  if (row >= *a.rows.n_live) return;
  const int group = a.n_head / a.pool.n_kv_head, chunks = head_chunks(group, kDecodeRows);
  const int kv_head = static_cast<int>(block_idx().y) / chunks;
  const int first_head =
      static_cast<int>(block_idx().y) % chunks * heads_per_chunk(group, kDecodeRows);
  const int n_head = smaller(heads_per_chunk(group, kDecodeRows), group - first_head);
  const int head = kv_head * group + first_head;
  const int g = lane_id() / 4;
  if (static_cast<int>(block_idx().x) >= parts_of_row(p, row).n) return;
  load_queries<kDim>(a, row, head, n_head, s.q);
  sync_threads();  // every warp reads all of q

  const int k_bytes = static_cast<int>(kv_head_bytes(a.pool.type_k, kDim));
  const int v_bytes = static_cast<int>(kv_head_bytes(a.pool.type_v, kDim));
  const int32_t* const table = a.table.blocks + a.rows.seq[row] * a.table.stride;
#pragma unroll 1
  for (int part = static_cast<int>(block_idx().x);; part += static_cast<int>(grid_dim().x)) {
    const DecodeParts parts = parts_of_row(p, row);  // again: no registers to keep them in
    if (part >= parts.n) break;
    const int first = parts.first, last = parts.last;
    const RowView view[2] = {{row, head + smaller(g, n_head - 1), last},
                             {row, head + smaller(g + 8, n_head - 1), last}};
    const int end = smaller(first / kBlockTok + (part + 1) * parts.n_block, last / kBlockTok + 1);
    float o[kDim / 8][4] = {};
    Softmax state;
    int b = first / kBlockTok + part * parts.n_block + warp_id();
    int32_t next = b < end ? table[b] : 0;
#pragma unroll 1
    for (; b < end; b += kWarps) {
      const int64_t block = next * int64_t{a.pool.n_kv_head} + kv_head;
      if (b + kWarps < end) next = table[b + kWarps];
      const int t0 = b * kBlockTok;
      const int lo = larger(first - t0, 0), hi = smaller(last - t0, kBlockTok - 1);
      float x[4][4], shrink[2];
      scores_of_block<kDim>(a.pool.type_k, s.q, a.pool.k + block * k_bytes, lo, hi, x);
      soften(a, view, t0, !sees_all(a, view[0], t0, kBlockTok), x, state, shrink);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[j][0] *= shrink[0], o[j][1] *= shrink[0];
        o[j][2] *= shrink[1], o[j][3] *= shrink[1];
      }
      add_block<kDim>(a.pool.type_v, x, a.pool.v + block * v_bytes, lo, hi, o);
    }
    merge_warps<kDim>(s, o, state);
    if (warp_id() == 0) stage_rows<kDim>(s, o, state);
    sync_threads();  // rows of warp 0, read by all
    const int n_part = parts_of_row(p, row).n;
    store_part<kDim>(p, s, row, head, n_head, part, n_part == 1);
    if (n_part == 1) return;
    sync_threads();  // rows were read: their room is that of the next part's accumulators
  }

  const int n_part = parts_of_row(p, row).n;
  int32_t* const counter = p.counter + int64_t{block_idx().z} * grid_dim().y + block_idx().y;
  if (!is_last_block(counter, smaller(n_part, static_cast<int>(grid_dim().x)), s.is_last)) return;
#pragma unroll 1
  for (int h = warp_id(); h < n_head; h += kWarps) merge_parts<kDim>(p, row, head + h, n_part);
}

}  // namespace infer::cuda
