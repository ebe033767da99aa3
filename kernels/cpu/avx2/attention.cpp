#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"

/// Attention with eight lanes: attention_tiles.h.
namespace infer::kern::avx2 {
namespace {

/// What attention_block.h asks of a level.
struct Vec : F32x8 {
  /// Vectors a pair in a register block: at most 12 accumulators.
  static constexpr int score_vecs(int n_pairs) { return n_pairs <= 3 ? 4 : 2; }
  static constexpr int value_vecs(int n_pairs) { return n_pairs == 1 ? 8 : (n_pairs <= 3 ? 4 : 2); }

  [[gnu::always_inline]] static Reg zero() { return _mm256_setzero_ps(); }
  [[gnu::always_inline]] static Reg broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  [[gnu::always_inline]] static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  [[gnu::always_inline]] static void store(float* p, Reg x) { _mm256_storeu_ps(p, x); }

  [[gnu::always_inline]] static Reg load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  [[gnu::always_inline]] static __m128i load_bytes(const std::byte* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  [[gnu::always_inline]] static Reg load_i8(const std::byte* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_bytes(p)));
  }
  /// The low (high) nibbles of eight bytes, minus 8.
  [[gnu::always_inline]] static Reg load_low4(const std::byte* p) {
    const __m256i q = _mm256_and_si256(_mm256_cvtepu8_epi32(load_bytes(p)), _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(8)));
  }
  [[gnu::always_inline]] static Reg load_high4(const std::byte* p) {
    const __m256i q = _mm256_srli_epi32(_mm256_cvtepu8_epi32(load_bytes(p)), 4);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(8)));
  }

  [[gnu::always_inline]] static Reg softcap(Reg x, float cap) { return softcap_ps(x, set1(cap)); }
  /// first, first + 1, ...
  [[gnu::always_inline]] static Reg count_from(int32_t first) {
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_set1_epi32(first), lanes()));
  }
  /// -inf in lanes outside [begin, end).
  [[gnu::always_inline]] static Reg keep_between(Reg x, int32_t begin, int32_t end) {
    const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lanes());
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lanes());
    const __m256 keep = _mm256_castsi256_ps(_mm256_andnot_si256(before, inside));
    return _mm256_blendv_ps(_mm256_set1_ps(kNegInf), x, keep);
  }
  [[gnu::always_inline]] static float max_of_tile(const float* s) {
    return hmax(_mm256_max_ps(_mm256_max_ps(load(s), load(s + 8)),
                              _mm256_max_ps(load(s + 16), load(s + 24))));
  }
  [[gnu::always_inline]] static void raise_max(const float* tile_max, float* max, float* rescale) {
    raise_max8(tile_max, max, rescale);
  }
  /// sum [8] = fma(sum, rescale, p[j] + p[j+8] + p[j+16] + p[j+24]) in the order of block_softmax.
  [[gnu::always_inline]] static void add_to_sum(const Reg (&p)[4], float rescale, float* sum) {
    const Reg add = _mm256_add_ps(_mm256_add_ps(p[0], p[1]), _mm256_add_ps(p[2], p[3]));
    store(sum, fma(load(sum), set1(rescale), add));
  }
  [[gnu::always_inline]] static float total(const float* sum) { return hsum(load(sum)); }
  [[gnu::always_inline]] static void merge(float* left, const float* right, int64_t head_dim_v) {
    attn_merge(left, right, head_dim_v);
  }

 private:
  [[gnu::always_inline]] static __m256i lanes() {
    return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  }
};

}  // namespace

int64_t attn_scratch_bytes(int64_t n_head, int64_t n_kv_head, int64_t head_dim,
                           int64_t head_dim_v) {
  const int64_t group = n_head / n_kv_head;
  const AttnLayout layout(attn_rows(group) * group, head_dim, head_dim_v);
  return layout.size * static_cast<int64_t>(sizeof(float));
}

void attn_spans(const AttnArgs& a) { AttnRun<Vec>(a).run(); }

void attn_merge(float* left, const float* right, int64_t head_dim_v) {
  // A visible slot adds exp(0) = 1 or NaN to a sum, so only an empty partial has sum 0.
  if (right[1] == 0.0f) return;
  if (left[1] == 0.0f) {
    std::memcpy(left, right, static_cast<size_t>(2 + head_dim_v) * sizeof(float));
    return;
  }
  const float max = left[0] > right[0] ? left[0] : right[0];
  const __m256 scale_left = _mm256_set1_ps(exp_nonpos(left[0] - max));
  const __m256 scale_right = _mm256_set1_ps(exp_nonpos(right[0] - max));
  left[0] = max;
  const int64_t n = 1 + head_dim_v;  // the sum is scaled like acc
  float* l = left + 1;
  const float* r = right + 1;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(r + i), scale_right);
    _mm256_storeu_ps(l + i, _mm256_fmadd_ps(_mm256_loadu_ps(l + i), scale_left, scaled));
  }
  if (i < n) {
    const __m256 scaled = _mm256_mul_ps(load_tail(r + i, n - i), scale_right);
    store_tail(l + i, n - i, _mm256_fmadd_ps(load_tail(l + i, n - i), scale_left, scaled));
  }
}

void attn_finish(const float* partial, int64_t head_dim_v, KvType v_type, float* out) {
  const __m256 sum = _mm256_set1_ps(partial[1]);
  const float* acc = partial + 2;
  int64_t i = 0;
  for (; i + 8 <= head_dim_v; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_div_ps(_mm256_loadu_ps(acc + i), sum));
  }
  if (i < head_dim_v) {
    store_tail(out + i, head_dim_v - i, _mm256_div_ps(load_tail(acc + i, head_dim_v - i), sum));
  }
  if (is_quantised(v_type)) rotate_kv(out, head_dim_v, out);
}

}  // namespace infer::kern::avx2
