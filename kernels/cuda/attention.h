#pragma once

#include "kernels/cuda/args.h"

/// Attention over the paged pool with a running softmax. A row at slot s of its sequence sees slots
/// t <= s and, if window > 0, t > s - window. logit = softcap(q.k * scale) + slope[head] * (t - s).
/// Sources: FlashAttention-2 (arXiv:2307.08691), flash-decoding for the split along KV.
namespace infer::cuda {

struct AttentionArgs {
  const float* q = nullptr;  ///< [m, n_head, head_dim], as rope_store left it
  float* out = nullptr;      ///< [m, n_head, head_dim]
  KvPool pool;
  Rows rows;
  BlockTable table;
  int n_head = 0;  ///< head h reads KV head h / (n_head / n_kv_head)
  float scale = 1.0f;
  float softcap = 0.0f;                 ///< 0: none
  int window = 0;                       ///< 0: full
  const float* alibi_slopes = nullptr;  ///< [n_head] or nullptr
  /// Row r sees, of the slots that this step writes (from the slot of its sequence's first row on),
  /// only those of rows tree_first[r] + i with bit i of tree[r] set. nullptr: causal. Nothing sets
  /// these yet: runtime::Step has no such mask before there is speculative decoding.
  const uint64_t* tree = nullptr;       ///< [m]
  const int32_t* tree_first = nullptr;  ///< [m] first row of the sequence in this step
};

/// head_dim 64, 80, 96, 128 or 256; K and V f16, bf16, q8_0 or q4_0 (bf16 needs sm_80).
bool has_attention(int head_dim, DType type_k, DType type_v);

/// For steps where rows of a sequence are few: what a row sees is cut into at most n_split parts,
/// which n_block blocks a row (and KV head) share out; the last of them to end merges. A row's bits
/// depend on n_split, not on n_block or on other rows. A launch for each kDecodeRowsAtOnce rows;
/// their grids depend on the arguments only.
struct AttentionDecodeArgs {
  AttentionArgs attention;
  int n_split = 1;
  int n_block = 1;
  float* partial = nullptr;    ///< attention_partial_floats()
  int32_t* counter = nullptr;  ///< [attention_counters()] zeros, and zeros again afterwards
};
/// Rows of a launch: they keep every device busy, and bound the memory for parts.
inline constexpr int kDecodeRowsAtOnce = 64;
int64_t attention_partial_floats(int m, int n_head, int head_dim, int n_split);
int64_t attention_counters(int m, int n_head, int n_kv_head);
cudaError_t attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream);

/// The heads of a layer, on a device of n_sm multiprocessors.
struct DecodeHeads {
  int head_dim, n_head, n_kv_head, n_sm;
};
/// n_split for rows that may see n_visible slots: one row alone keeps the device busy.
int attention_split(const DecodeHeads& heads, int64_t n_visible);
/// n_block for m rows: no more than the device takes at once, where there is a choice.
int attention_blocks(const DecodeHeads& heads, int m, int n_split);

/// Rows [begin, begin + n) of one sequence that share a query tile.
struct QueryTile {
  int32_t begin, n;
};
/// For prompts: tensor cores, a block for each (tile, KV head). Tiles hold at most
/// query_tile_rows() rows; they are made on the host for a step.
struct AttentionPrefillArgs {
  AttentionArgs attention;
  const QueryTile* tiles = nullptr;  ///< on the device
  int n_tile = 0;
};
/// Query rows a tile may have, for n_head / n_kv_head heads in a group.
int query_tile_rows(int head_dim, int group);
cudaError_t attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream);

}  // namespace infer::cuda
