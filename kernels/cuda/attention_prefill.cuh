#pragma once

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_tile.cuh"

namespace infer::cuda {

namespace attention {

/// Tokens in a step of the loop: half a block for the largest heads, so that all fits the 64 KiB of
/// sm_75.
template <int kDim>
inline constexpr int kPrefillTok = kDim == 256 ? 16 : 32;
/// Queries of large heads stay in shared memory, as fragments that each lane alone reads back.
template <int kDim>
inline constexpr bool kQueryInRegisters = kDim <= 128;

/// 256 bytes a dim: 16 to 32 KiB, for 256 dims 64 KiB.
template <int kDim>
union PrefillStorage {
  struct {
    uint4 k[2][kPrefillTok<kDim> * kDim / 8], v[2][kPrefillTok<kDim> * kDim / 8];
    uint4 q[kQueryInRegisters<kDim> ? 1 : kWarps * kDim / 16][kWarp];
  } in;
  float out[kWarps][16][kDim];
};

/// Place of a row's 16-byte chunk in a tile of K or V: chunks are swapped so that ldmatrix, which
/// takes one chunk of eight rows, finds them in different banks.
template <int kDim>
INFER_DEVICE int chunk_at(int row, int chunk) {
  constexpr int kChunks = kDim / 8, kAligned = kChunks & -kChunks;
  constexpr int kSwap = kAligned < 8 ? kAligned : 8;
  return row * kChunks + (chunk ^ (row / (8 / kSwap) % kSwap));
}

/// Slots t0.. of a head into a tile, by all threads. Slots outside lo..hi may never have been
/// written: their place takes a copy of the nearest inside.
template <int kDim>
INFER_DEVICE void load_tile(Plane plane, const std::byte* head, int t0, int lo, int hi, uint4* to) {
  constexpr int kChunks = kDim / 8, kAll = kPrefillTok<kDim> * kChunks;
#pragma unroll
  for (int i = static_cast<int>(thread_idx().x); i < kAll; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int token = clamp_to(t0 + row, lo, hi) % kBlockTok;
    uint4* const at = to + chunk_at<kDim>(row, chunk);
    if (plane == Plane::k16Bit) {
      cp_async<16>(at, head + 2 * (token * kDim + 8 * chunk));
      continue;
    }
    if constexpr (kDim % 32 == 0) {
      uint32_t w[4];
      if (plane == Plane::kQ8)
        read_values<Plane::kQ8, kDim, 8>(head, token, 8 * chunk, w);
      else if (plane == Plane::kQ4Pairs)
        read_values<Plane::kQ4Pairs, kDim, 8>(head, token, 8 * chunk, w);
      else
        read_values<Plane::kQ4Halves, kDim, 8>(head, token, 8 * chunk, w);
      *at = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

/// What a warp keeps of its 16 queries: fragments of mma's left operand, a k-step of 16 dims each.
template <int kDim>
struct QueryFragments {
  uint32_t held[kQueryInRegisters<kDim> ? kDim / 16 : 1][4];
  uint4 (*stored)[kWarp];

  INFER_DEVICE void put(int step, const uint32_t (&a)[4]) {
    if constexpr (kQueryInRegisters<kDim>)
      memcpy(held[step], a, sizeof a);
    else
      stored[step][lane_id()] = make_uint4(a[0], a[1], a[2], a[3]);
  }
  INFER_DEVICE void get(int step, uint32_t (&a)[4]) const {
    if constexpr (kQueryInRegisters<kDim>) {
      memcpy(a, held[step], sizeof a);
    } else {
      const uint4 w = stored[step][lane_id()];
      a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
    }
  }
};

template <bool kBf16, int kDim, int kN>
INFER_DEVICE void scores_of_tile(const QueryFragments<kDim>& q, const uint4* k, float (&s)[kN][4]) {
  const int lane = lane_id();
#pragma unroll
  for (int i = 0; i < kN; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[4];
    q.get(step, a);
#pragma unroll
    for (int i = 0; i < kN; i += 2) {
      uint32_t b[4];  // 16 tokens: k and k + 8 of the first eight, then of the others
      ldmatrix(b, k + chunk_at<kDim>(8 * i + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
      multiply_add<kBf16>(s[i], a, {b[0], b[1]});
      multiply_add<kBf16>(s[i + 1], a, {b[2], b[3]});
    }
  }
}

template <bool kBf16, int kDim, int kN>
INFER_DEVICE void add_weighted_values(const float (&s)[kN][4], const uint4* v,
                                      float (&o)[kDim / 8][4]) {
  const int lane = lane_id();
#pragma unroll
  for (int step = 0; step < kN / 2; ++step) {
    uint32_t p[4];
    weights_of<kBf16>(s, step, p);
#pragma unroll
    for (int j = 0; j < kDim / 8; j += 2) {
      uint32_t b[4];  // 16 dims: tokens and tokens + 8 of the first eight, then of the others
      ldmatrix<4, true>(b, v + chunk_at<kDim>(16 * step + lane % 16, j + lane / 16));
      multiply_add<kBf16>(o[j], p, {b[0], b[1]});
      multiply_add<kBf16>(o[j + 1], p, {b[2], b[3]});
    }
  }
}

/// The lane's row g (r = 0) or g + 8 of its warp.
INFER_DEVICE RowView prefill_row(const AttentionArgs& a, const QueryTile& tile, int n_row, int r) {
  const int group = a.n_head / a.pool.n_kv_head, chunks = head_chunks(group, kPrefillRows);
  const int n_head = heads_per_chunk(group, kPrefillRows), y = static_cast<int>(block_idx().y);
  const int at = 16 * warp_id() + 8 * r + lane_id() / 4;
  const int in_group = y % chunks * n_head + at % n_head;
  if (at / n_head >= n_row || in_group >= group) return {};
  const int row = tile.begin + at / n_head;
  return {row, y / chunks * group + in_group, a.rows.slot[row]};
}

template <int kDim>
INFER_DEVICE void load_queries(const AttentionArgs& a, const RowView (&row)[2],
                               QueryFragments<kDim>& q) {
  const float scale = query_scale(a);
  const bool bf16 = a.pool.type_k == DType::kBF16;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t fragment[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i % 2, dim = 16 * step + i / 2 * 8 + lane_id() % 4 * 2;
      float2 x = make_float2(0.0f, 0.0f);
      if (row[r].row >= 0)
        x = load_readonly<float2>(
            a.q + (static_cast<int64_t>(row[r].row) * a.n_head + row[r].head) * kDim + dim);
      fragment[i] = pack(bf16, x.x * scale, x.y * scale);
    }
    q.put(step, fragment);
  }
}

/// o / sum into `out`.
template <int kDim>
INFER_DEVICE void store_tile(const AttentionArgs& a, const RowView (&row)[2],
                             const float (&inverse)[2], const float (&o)[kDim / 8][4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r].row < 0) continue;
    float* const to = a.out + (static_cast<int64_t>(row[r].row) * a.n_head + row[r].head) * kDim;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j)
      store(to + 8 * j + lane_id() % 4 * 2,
            make_float2(o[j][2 * r] * inverse[r], o[j][2 * r + 1] * inverse[r]));
  }
}

/// The same where rows have to be turned back: through the warp's part of shared memory.
template <int kDim>
INFER_DEVICE void store_rotated_tile(const AttentionArgs& a, const RowView (&row)[2],
                                     const float (&inverse)[2], const float (&o)[kDim / 8][4],
                                     float (*staged)[kDim]) {
#pragma unroll
  for (int i = 0; i < kDim / 4; ++i) {
    const int r = i % 2, j = i / 2;
    store(&staged[8 * r + lane_id() / 4][8 * j + lane_id() % 4 * 2],
          make_float2(o[j][2 * r] * inverse[r], o[j][2 * r + 1] * inverse[r]));
  }
  // Rows are read by other lanes than wrote them.
  sync_warp();  // unseen: the shuffles below stop the emulator's lanes, but order no memory
#pragma unroll 1
  for (int i = 0; i < 16; ++i) {
    const int64_t to = shfl(i < 8 ? row[0].row : row[1].row, i % 8 * 4);
    const int head = shfl(i < 8 ? row[0].head : row[1].head, i % 8 * 4);
    if (to < 0) continue;
    float x[kDim / 32];
#pragma unroll
    for (int d = 0; d < kDim / 32; ++d) x[d] = staged[i][lane_id() + 32 * d];
    store_row<kDim>(true, x, a.out + (to * a.n_head + head) * kDim);
  }
}

}  // namespace attention

/// FlashAttention-2 forward (arXiv:2307.08691, Algorithm 1) over the paged pool.
/// Grid (n_tile, n_kv_head * chunks of heads), longest tiles first; kThreads threads.
/// Shapes: tile rows = query rows x heads of the group, packed, 16 a warp; K and V pass through two
/// stages of kPrefillTok tokens, quantised ones as f16.
/// Bytes: K and V of what a tile sees once for each of its KV heads; q and out once.
/// A tile of tokens that none of a warp's rows sees is skipped by that warp.
template <int kDim>
__global__ void __launch_bounds__(attention::kThreads, kDim >= 128 ? 2 : 3)
    attention_prefill_tile(const __grid_constant__ AttentionPrefillArgs p) {
  using namespace attention;
  constexpr int kTok = kPrefillTok<kDim>;
  const AttentionArgs& a = p.attention;
  auto& s = shared<PrefillStorage<kDim>>();
  const QueryTile tile = p.tiles[grid_dim().x - 1 - block_idx().x];
  const int n_row = smaller(tile.n, smaller(*a.rows.n_live, a.rows.m) - tile.begin);
  if (n_row <= 0) return;
  int lo = INT_MAX, hi = -1;
  for (int i = lane_id(); i < n_row; i += kWarp) {
    const int slot = a.rows.slot[tile.begin + i];
    lo = smaller(lo, first_slot(a, slot));
    hi = larger(hi, slot);
  }
  lo = warp_min(lo);
  hi = warp_max(hi);
  const RowView view[2] = {prefill_row(a, tile, n_row, 0), prefill_row(a, tile, n_row, 1)};
  int warp_first = INT_MAX;
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (view[r].row >= 0) warp_first = smaller(warp_first, first_slot(a, view[r].last));
  warp_first = warp_min(warp_first);
  const int warp_last = warp_max(larger(view[0].last, view[1].last));
  QueryFragments<kDim> q;
  if constexpr (!kQueryInRegisters<kDim>) q.stored = s.in.q + warp_id() * (kDim / 16);
  load_queries(a, view, q);

  const int chunks = head_chunks(a.n_head / a.pool.n_kv_head, kPrefillRows);
  const int64_t kv_head = block_idx().y / static_cast<unsigned>(chunks);
  const int k_bytes = static_cast<int>(kv_head_bytes(a.pool.type_k, kDim));
  const int v_bytes = static_cast<int>(kv_head_bytes(a.pool.type_v, kDim));
  const Plane k_plane = a.pool.type_k == DType::kQ8_0   ? Plane::kQ8
                        : a.pool.type_k == DType::kQ4_0 ? Plane::kQ4Pairs
                                                        : Plane::k16Bit;
  const Plane v_plane = a.pool.type_v == DType::kQ8_0   ? Plane::kQ8
                        : a.pool.type_v == DType::kQ4_0 ? Plane::kQ4Halves
                                                        : Plane::k16Bit;
  const int32_t* const table = a.table.blocks + a.rows.seq[tile.begin] * a.table.stride;
  const auto load_stage = [&](int t0, int stage) {
    const int64_t block = table[t0 / kBlockTok] * int64_t{a.pool.n_kv_head} + kv_head;
    load_tile<kDim>(k_plane, a.pool.k + block * k_bytes, t0, lo, hi, s.in.k[stage]);
    load_tile<kDim>(v_plane, a.pool.v + block * v_bytes, t0, lo, hi, s.in.v[stage]);
    cp_async_commit();
  };

  float o[kDim / 8][4] = {};
  Softmax state;
  int stage = 0;
  load_stage(lo / kTok * kTok, 0);
  for (int t0 = lo / kTok * kTok; t0 <= hi; t0 += kTok, stage ^= 1) {
    cp_async_wait<0>();
    // All threads' parts of this stage are there, and no warp reads the other stage any more.
    sync_threads();
    if (t0 + kTok <= hi) load_stage(t0 + kTok, stage ^ 1);
    if (t0 > warp_last || t0 + kTok <= warp_first) continue;
    float x[kTok / 8][4];
    if (a.pool.type_k == DType::kBF16)
      scores_of_tile<true>(q, s.in.k[stage], x);
    else
      scores_of_tile<false>(q, s.in.k[stage], x);
    const bool masked =
        warp_any(!sees_all(a, view[0], t0, kTok) || !sees_all(a, view[1], t0, kTok));
    float shrink[2];
    soften(a, view, t0, masked, x, state, shrink);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      o[j][0] *= shrink[0], o[j][1] *= shrink[0];
      o[j][2] *= shrink[1], o[j][3] *= shrink[1];
    }
    if (a.pool.type_v == DType::kBF16)
      add_weighted_values<true, kDim>(x, s.in.v[stage], o);
    else
      add_weighted_values<false, kDim>(x, s.in.v[stage], o);
  }
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = row_sum(state.sum[r]);
    inverse[r] = sum > 0.0f ? 1.0f / sum : 0.0f;
  }
  if constexpr (kDim % 32 == 0) {
    if (is_quantised(a.pool.type_v)) {
      sync_threads();  // the stages become room for rows: every warp is done with the last tile
      return store_rotated_tile<kDim>(a, view, inverse, o, s.out[warp_id()]);
    }
  }
  store_tile<kDim>(a, view, inverse, o);
}

}  // namespace infer::cuda
