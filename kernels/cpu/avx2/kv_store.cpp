#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"

/// f32 -> f16 rounds to nearest even; beyond f16's range the conversion gives +-inf, NaN stays NaN.
namespace infer::kern::avx2 {
namespace {

[[gnu::always_inline]] inline __m128i to_f16(__m256 v) {
  return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/// One head's V row: contiguous.
void store_row(const float* src, int64_t n, KvType type, std::byte* dst) {
  if (type == KvType::kF32) {
    std::memcpy(dst, src, static_cast<size_t>(n) * 4);
    return;
  }
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
void store_column(const float* src, int64_t n, KvType type, std::byte* dst) {
  if (type == KvType::kF32) {
    for (int64_t i = 0; i < n; ++i) std::memcpy(dst + i * kBlockTok * 4, src + i, 4);
    return;
  }
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
  const int64_t k_size = kv_type_bytes(p.k_type);
  const int64_t v_size = kv_type_bytes(p.v_type);
  std::byte* k_block = p.k + args.block * k_block_bytes(p);
  std::byte* v_block = p.v + args.block * v_block_bytes(p);
  for (int64_t h = 0; h < p.n_kv_head; ++h) {
    std::byte* k = k_block + (h * p.head_dim * kBlockTok + args.offset) * k_size;
    std::byte* v = v_block + (h * kBlockTok + args.offset) * p.head_dim_v * v_size;
    store_column(args.k_row + h * p.head_dim, p.head_dim, p.k_type, k);
    store_row(args.v_row + h * p.head_dim_v, p.head_dim_v, p.v_type, v);
  }
}

}  // namespace infer::kern::avx2
