#include <cstring>

#include "core/base/half.h"
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

}  // namespace

void kv_store(const KvStoreArgs& args) {
  const KvPoolView& p = args.pool;
  const int64_t k_size = kv_type_bytes(p.k_type);
  const int64_t v_size = kv_type_bytes(p.v_type);
  std::byte* k_block = p.k + args.block * k_block_bytes(p);
  std::byte* v_block = p.v + args.block * v_block_bytes(p);
  for (int64_t h = 0; h < p.n_kv_head; ++h) {
    std::byte* k = k_block + (h * p.head_dim * kBlockTok + args.offset) * k_size;
    std::byte* v = v_block + (h * kBlockTok + args.offset) * p.head_dim_v * v_size;
    store_strided(args.k_row + h * p.head_dim, p.head_dim, p.k_type, k, kBlockTok);
    store_strided(args.v_row + h * p.head_dim_v, p.head_dim_v, p.v_type, v, 1);
  }
}

}  // namespace infer::kern::generic
