#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"
#include "kernels/cpu/generic/kv_quant.h"

/// Quantised types: generic/kv_quant.h. f32 -> f16 rounds to nearest even; beyond f16's range the
/// conversion gives +-inf, NaN stays NaN.
namespace infer::kern::avx2 {
namespace {

[[gnu::always_inline]] inline __m128i to_f16(__m256 v) {
  return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/// One head's V row: contiguous.
void store_v(const float* src, int64_t n, KvType type, std::byte* tile, int64_t t) {
  if (type == KvType::kQ8_0) return store_v_quant<KvType::kQ8_0>(src, n, tile, t);
  if (type == KvType::kQ4_0) return store_v_quant<KvType::kQ4_0>(src, n, tile, t);
  if (type == KvType::kF32) {
    std::memcpy(tile + t * n * 4, src, static_cast<size_t>(n) * 4);
    return;
  }
  std::byte* dst = tile + t * n * 2;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i * 2), to_f16(_mm256_loadu_ps(src + i)));
  }
  if (i < n) {
    alignas(16) uint16_t h[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(h), to_f16(load_tail(src + i, n - i)));
    std::memcpy(dst + i * 2, h, static_cast<size_t>(n - i) * 2);
  }
}

/// One head's K row: elements kBlockTok apart.
void store_k(const float* src, int64_t n, KvType type, const KvQueries& queries, std::byte* tile,
             int64_t t) {
  if (type == KvType::kQ8_0) return store_k_quant<KvType::kQ8_0>(src, n, queries, tile, t);
  if (type == KvType::kQ4_0) return store_k_quant<KvType::kQ4_0>(src, n, queries, tile, t);
  if (type == KvType::kF32) {
    std::byte* dst = tile + t * 4;
    for (int64_t i = 0; i < n; ++i) std::memcpy(dst + i * kBlockTok * 4, src + i, 4);
    return;
  }
  std::byte* dst = tile + t * 2;
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t m = n - i < 8 ? n - i : 8;
    alignas(16) uint16_t h[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(h), to_f16(load_tail(src + i, m)));
    for (int64_t j = 0; j < m; ++j) std::memcpy(dst + (i + j) * kBlockTok * 2, h + j, 2);
  }
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

}  // namespace infer::kern::avx2
