#include <immintrin.h>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/nonlinear.h"
#include "kernels/cpu/avx512/install.h"

/// Attention with sixteen lanes: attention_tiles.h. The bits are those of AVX2: chains run over d
/// and over slots, never over lanes, and sums keep eight lanes.
namespace infer::kern::avx512 {
namespace {

[[gnu::always_inline]] inline __m256 low(__m512 x) { return _mm512_castps512_ps256(x); }
[[gnu::always_inline]] inline __m256 high(__m512 x) { return _mm512_extractf32x8_ps(x, 1); }

/// What attention_block.h asks of a level.
struct Vec {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  /// Vectors a pair in a register block: a whole tile; 64 dims in at most 24 accumulators.
  static constexpr int score_vecs(int /*n_pairs*/) { return 2; }
  static constexpr int value_vecs(int /*n_pairs*/) { return 4; }

  [[gnu::always_inline]] static Reg zero() { return _mm512_setzero_ps(); }
  [[gnu::always_inline]] static Reg set1(float x) { return _mm512_set1_ps(x); }
  [[gnu::always_inline]] static Reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
  [[gnu::always_inline]] static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  [[gnu::always_inline]] static void store(float* p, Reg x) { _mm512_storeu_ps(p, x); }
  [[gnu::always_inline]] static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  [[gnu::always_inline]] static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  [[gnu::always_inline]] static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg fnma(Reg a, Reg b, Reg c) { return _mm512_fnmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg pow2(Reg shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23),
                                                _mm512_set1_epi32(0x3f800000)));
  }
  [[gnu::always_inline]] static Reg zero_below(Reg x, float bound, Reg y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set1(bound), _CMP_NLT_UQ), y);
  }

  [[gnu::always_inline]] static Reg load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  [[gnu::always_inline]] static __m128i load_bytes(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  [[gnu::always_inline]] static Reg load_i8(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_bytes(p)));
  }
  /// The low (high) nibbles of sixteen bytes, minus 8.
  [[gnu::always_inline]] static Reg load_low4(const std::byte* p) {
    const __m512i q = _mm512_and_si512(_mm512_cvtepu8_epi32(load_bytes(p)), _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(8)));
  }
  [[gnu::always_inline]] static Reg load_high4(const std::byte* p) {
    const __m512i q = _mm512_srli_epi32(_mm512_cvtepu8_epi32(load_bytes(p)), 4);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(8)));
  }

  [[gnu::always_inline]] static Reg softcap(Reg x, float cap) {
    const __m256 c = _mm256_set1_ps(cap);
    return _mm512_insertf32x8(_mm512_castps256_ps512(avx2::softcap_ps(low(x), c)),
                              avx2::softcap_ps(high(x), c), 1);
  }
  /// first, first + 1, ...
  [[gnu::always_inline]] static Reg count_from(int32_t first) {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(first), lanes()));
  }
  /// -inf in lanes outside [begin, end).
  [[gnu::always_inline]] static Reg keep_between(Reg x, int32_t begin, int32_t end) {
    const __mmask16 keep =
        _mm512_mask_cmplt_epi32_mask(_mm512_cmpge_epi32_mask(lanes(), _mm512_set1_epi32(begin)),
                                     lanes(), _mm512_set1_epi32(end));
    return _mm512_mask_mov_ps(set1(avx2::kNegInf), keep, x);
  }
  [[gnu::always_inline]] static float max_of_tile(const float* s) {
    const Reg m = _mm512_max_ps(load(s), load(s + 16));
    return avx2::hmax(_mm256_max_ps(low(m), high(m)));
  }
  [[gnu::always_inline]] static void raise_max(const float* tile_max, float* max, float* rescale) {
    avx2::raise_max8(tile_max, max, rescale);
  }
  [[gnu::always_inline]] static void add_to_sum(const Reg (&p)[2], float rescale, float* sum) {
    const __m256 add =
        _mm256_add_ps(_mm256_add_ps(low(p[0]), high(p[0])), _mm256_add_ps(low(p[1]), high(p[1])));
    _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_loadu_ps(sum), _mm256_set1_ps(rescale), add));
  }
  [[gnu::always_inline]] static float total(const float* sum) {
    return avx2::hsum(_mm256_loadu_ps(sum));
  }
  [[gnu::always_inline]] static void merge(float* left, const float* right, int64_t head_dim_v) {
    avx2::attn_merge(left, right, head_dim_v);
  }

 private:
  [[gnu::always_inline]] static __m512i lanes() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
};

void attn_spans(const AttnArgs& a) { AttnRun<Vec>(a).run(); }

}  // namespace

void install_attention(CpuKernels& table) { table.attn_spans = attn_spans; }

}  // namespace infer::kern::avx512
