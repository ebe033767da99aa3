#include "kernels/cpu/avx2/linear_act.h"

#include <cstring>

#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"

namespace infer::kern::avx2 {
namespace {

int32_t sum_i32(__m256i v) {
  __m128i t = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
  return _mm_cvtsi128_si32(t);
}

/// Largest magnitude as bits; a NaN or an infinity comes out on top.
int32_t max_bits(const __m256 v[4]) {
  const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
  __m256i top = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), abs_mask));
  }
  __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
  t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
  return _mm_cvtsi128_si32(t);
}

void quantise_block(const float* x, ActBlock* b) {
  __m256 v[4];
  for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + 8 * i);
  const int32_t bits = max_bits(v);
  std::memset(b, 0, sizeof(*b));
  if (bits >= 0x7f800000) {
    b->d = b->s = __builtin_nanf("");
    return;
  }
  const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
  if (max < kActTiny) return;
  const __m256 inv = _mm256_set1_ps(127.0f / max);
  __m256i q[4];
  for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));  // nearest even
  const int32_t sum_lo = sum_i32(_mm256_add_epi32(q[0], q[1]));
  const int32_t sum_hi = sum_i32(_mm256_add_epi32(q[2], q[3]));
  const __m256i words_lo = _mm256_packs_epi32(q[0], q[1]);
  const __m256i words_hi = _mm256_packs_epi32(q[2], q[3]);
  const __m256i order =
      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // undo the packs' interleave of 128-bit halves
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words_lo, words_hi), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b->q), bytes);
  b->d = max / 127.0f;
  b->s = b->d * static_cast<float>(sum_lo + sum_hi);
  b->h[0] = static_cast<int16_t>(sum_lo);
  b->h[1] = static_cast<int16_t>(sum_hi);
}

}  // namespace

int64_t act_bytes_f32(int64_t k) { return act_f32_len(k) * static_cast<int64_t>(sizeof(float)); }
int64_t act_bytes_q8(int64_t k) { return k / 32 * static_cast<int64_t>(sizeof(ActBlock)); }

void prepare_f32(const float* x, int64_t k, std::byte* act) {
  const size_t used = static_cast<size_t>(k) * sizeof(float);
  std::memcpy(act, x, used);
  std::memset(act + used, 0, static_cast<size_t>(act_bytes_f32(k)) - used);
}

void prepare_q8(const float* x, int64_t k, std::byte* act) {
  ActBlock* blocks = reinterpret_cast<ActBlock*>(act);
  for (int64_t ib = 0; ib < k / 32; ++ib) quantise_block(x + ib * 32, blocks + ib);
}

}  // namespace infer::kern::avx2
