#include <cstring>

#include "core/base/half.h"
#include "kernels/cpu/generic/kv_quant.h"
#include "kernels/cpu/generic/nonlinear.h"

namespace infer::kern::generic {
namespace {

/// Writes src[n] to dst, `step` elements apart.
void store_strided(const float* src, int64_t n, KvType type, std::byte* dst, int64_t step) {
  for (int64_t i = 0; i < n; ++i) {
    if (type == KvType::kF16) {
      const uint16_t h = f16_from_f32(src[i]);
      std::memcpy(dst + i * step * 2, &h, 2);
    } else {
      std::memcpy(dst + i * step * 4, &src[i], 4);
    }
  }
}

void store_k(const float* src, int64_t n, KvType type, const KvQueries& queries, std::byte* tile,
             int64_t t) {
  if (type == KvType::kQ8_0) return store_k_quant<KvType::kQ8_0>(src, n, queries, tile, t);
  if (type == KvType::kQ4_0) return store_k_quant<KvType::kQ4_0>(src, n, queries, tile, t);
  store_strided(src, n, type, tile + t * (type == KvType::kF16 ? 2 : 4), kBlockTok);
}

void store_v(const float* src, int64_t n, KvType type, std::byte* tile, int64_t t) {
  if (type == KvType::kQ8_0) return store_v_quant<KvType::kQ8_0>(src, n, tile, t);
  if (type == KvType::kQ4_0) return store_v_quant<KvType::kQ4_0>(src, n, tile, t);
  store_strided(src, n, type, tile + t * n * (type == KvType::kF16 ? 2 : 4), 1);
}

}  // namespace

void kv_store(const KvStoreArgs& args) {
  const KvPoolView& p = args.pool;
  const int64_t k_head = kv_head_bytes(p.k_type, p.head_dim);
  const int64_t v_head = kv_head_bytes(p.v_type, p.head_dim_v);
  std::byte* k_block = p.k + args.block * k_block_bytes(p);
  std::byte* v_block = p.v + args.block * v_block_bytes(p);
  for (int64_t h = 0; h < p.n_kv_head; ++h) {
    KvQueries queries;
    if (args.q_row != nullptr) {
      queries.n_q = args.n_head / p.n_kv_head;
      queries.q = args.q_row + h * queries.n_q * p.head_dim;
    }
    store_k(args.k_row + h * p.head_dim, p.head_dim, p.k_type, queries, k_block + h * k_head,
            args.offset);
    store_v(args.v_row + h * p.head_dim_v, p.head_dim_v, p.v_type, v_block + h * v_head,
            args.offset);
  }
}

}  // namespace infer::kern::generic
