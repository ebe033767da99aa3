#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/attention_launch.h"

namespace infer::cuda {

namespace {

bool is_quantised(DType type) { return type == DType::kQ8_0 || type == DType::kQ4_0; }
bool is_kv_type(DType type) {
  return type == DType::kF16 || type == DType::kBF16 || is_quantised(type);
}

/// fn.operator()<head_dim>().
template <class Fn>
cudaError_t with_head_dim(int head_dim, Fn&& fn) {
  switch (head_dim) {
    case 64:
      return fn.template operator()<64>();
    case 80:
      return fn.template operator()<80>();
    case 96:
      return fn.template operator()<96>();
    case 128:
      return fn.template operator()<128>();
    case 256:
      return fn.template operator()<256>();
    default:
      return cudaErrorNotSupported;
  }
}

cudaError_t check(const AttentionArgs& a) {
  const KvPool& pool = a.pool;
  if (!has_attention(pool.head_dim, pool.type_k, pool.type_v)) return cudaErrorNotSupported;
  if (pool.n_kv_head < 1 || a.n_head < 1 || a.n_head % pool.n_kv_head != 0 || a.rows.m < 0)
    return cudaErrorInvalidValue;
  if (pool.type_k != DType::kBF16 && pool.type_v != DType::kBF16) return cudaSuccess;
  int device = 0, major = 0;
  cudaError_t e = cudaGetDevice(&device);
  if (e == cudaSuccess)
    e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return e != cudaSuccess ? e : major >= 8 ? cudaSuccess : cudaErrorNotSupported;
}

int rows_at_once(int m) { return std::min(m, kDecodeRowsAtOnce); }

/// Blocks that share out the heads of a row.
int64_t blocks_of_heads(int n_head, int n_kv_head) {
  return int64_t{n_kv_head} * attention::head_chunks(n_head / n_kv_head, attention::kDecodeRows);
}

/// Blocks for the parts of each row (and its heads) that are on the device at once, 0 if none.
int64_t blocks_a_row(const DecodeHeads& h, int m) {
  return int64_t{h.n_sm} * attention::decode_occupancy(h.head_dim) /
         (std::max(m, 1) * blocks_of_heads(h.n_head, h.n_kv_head));
}

}  // namespace

bool has_attention(int head_dim, DType type_k, DType type_v) {
  if (!is_kv_type(type_k) || !is_kv_type(type_v)) return false;
  const bool groups_of_32 = is_quantised(type_k) || is_quantised(type_v);
  return with_head_dim(head_dim, [&]<int kDim>() {
           return groups_of_32 && kDim % 32 != 0 ? cudaErrorNotSupported : cudaSuccess;
         }) == cudaSuccess;
}

int64_t attention_partial_floats(int m, int n_head, int head_dim, int n_split) {
  return n_split > 1 ? int64_t{rows_at_once(m)} * n_head * n_split * (head_dim + 2) : 0;
}

int64_t attention_counters(int m, int n_head, int n_kv_head) {
  return int64_t{rows_at_once(m)} * blocks_of_heads(n_head, n_kv_head);
}

int attention_split(const DecodeHeads& h, int64_t n_visible) {
  constexpr int64_t kMost = 128;  // so that merging takes less time than the parts
  constexpr int64_t kLeast = int64_t{attention::kMinPartBlocks} * kBlockTok;  // slots of a part
  const int64_t useful = std::clamp<int64_t>((n_visible + kLeast - 1) / kLeast, 1, kMost);
  return static_cast<int>(std::clamp<int64_t>(blocks_a_row(h, 1), 1, useful));
}

int attention_blocks(const DecodeHeads& h, int m, int n_split) {
  const int64_t room = std::clamp<int64_t>(blocks_a_row(h, rows_at_once(m)), 1, n_split);
  const int64_t n_part = (n_split + room - 1) / room;  // of a block, all alike
  return static_cast<int>((n_split + n_part - 1) / n_part);
}

cudaError_t attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  if (const cudaError_t e = check(a); e != cudaSuccess) return e;
  if (args.n_split < 1 || args.n_block < 1) return cudaErrorInvalidValue;
  if (a.rows.m == 0) return cudaSuccess;
  return with_head_dim(a.pool.head_dim,
                       [&]<int kDim>() { return attention::launch_decode<kDim>(args, stream); });
}

int query_tile_rows(int /*head_dim*/, int group) {
  return attention::kPrefillRows / attention::heads_per_chunk(group, attention::kPrefillRows);
}

cudaError_t attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  if (const cudaError_t e = check(a); e != cudaSuccess) return e;
  if (args.n_tile < 0) return cudaErrorInvalidValue;
  if (args.n_tile == 0) return cudaSuccess;
  return with_head_dim(a.pool.head_dim,
                       [&]<int kDim>() { return attention::launch_prefill<kDim>(args, stream); });
}

}  // namespace infer::cuda
