#include <immintrin.h>

#include "kernels/cpu/roofline_loops.h"

/// AVX2 + FMA. Every loop keeps its operands in registers and feeds independent chains of
/// accumulators, enough of them to hide the latency of the last instruction of the recipe.
namespace infer::kern::avx2 {
namespace {

/// The compiler must take the value as new here, or it would compute a product once for all.
[[gnu::always_inline]] inline void renew(__m256i& v) { __asm__ volatile("" : "+x"(v)); }
[[gnu::always_inline]] inline void renew(__m256& v) { __asm__ volatile("" : "+x"(v)); }

double sum_i32(__m256i v) {
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), v);
  double sum = 0.0;
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

[[gnu::always_inline]] inline __m256i load_period16(const void* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

constexpr int kF32Chains = 12;  // 2 a cycle with a latency of 4 or 5 (Haswell to Zen 4)

double f32_fma(const RooflineArgs& args) {
  __m256 a = _mm256_loadu_ps(args.f32_a);
  const __m256 b = _mm256_loadu_ps(args.f32_b);
  __m256 acc[kF32Chains];
  roofline_each<kF32Chains>([&](auto i) { acc[i.value] = _mm256_setzero_ps(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kF32Chains>([&](auto i) {
      renew(a);
      acc[i.value] = _mm256_fmadd_ps(a, b, acc[i.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kF32Chains>([&](auto i) {
    float lanes[8];
    _mm256_storeu_ps(lanes, acc[i.value]);
    for (const float lane : lanes) sum += static_cast<double>(lane);
  });
  return sum;
}

constexpr int kInt8Chains = 8;

double int8_maddubs(const RooflineArgs& args) {
  __m256i a = load_period16(args.u8_a);
  const __m256i b = load_period16(args.i8_b), ones = _mm256_set1_epi16(1);
  __m256i acc[kInt8Chains];
  roofline_each<kInt8Chains>([&](auto i) { acc[i.value] = _mm256_setzero_si256(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kInt8Chains>([&](auto i) {
      renew(a);
      acc[i.value] =
          _mm256_add_epi32(acc[i.value], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
      renew(acc[i.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kInt8Chains>([&](auto i) { sum += sum_i32(acc[i.value]); });
  return sum;
}

constexpr int kWide = 8;  // products added in 16 bits: 8 * 2 * 15 * 127 < 2^15
constexpr int kWideChains = 4;

double int8_maddubs8(const RooflineArgs& args) {
  __m256i a = load_period16(args.u8_a);
  const __m256i b = load_period16(args.i8_b), ones = _mm256_set1_epi16(1);
  __m256i acc[kWideChains];
  roofline_each<kWideChains>([&](auto i) { acc[i.value] = _mm256_setzero_si256(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    __m256i words[kWideChains];
    roofline_each<kWideChains>([&](auto c) {
      renew(a);
      words[c.value] = _mm256_maddubs_epi16(a, b);
    });
    roofline_each<(kWide - 1) * kWideChains>([&](auto i) {
      constexpr int kChain = i.value % kWideChains;
      renew(a);
      words[kChain] = _mm256_add_epi16(words[kChain], _mm256_maddubs_epi16(a, b));
      renew(words[kChain]);
    });
    roofline_each<kWideChains>([&](auto c) {
      acc[c.value] = _mm256_add_epi32(acc[c.value], _mm256_madd_epi16(words[c.value], ones));
      renew(acc[c.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kWideChains>([&](auto i) { sum += sum_i32(acc[i.value]); });
  return sum;
}

}  // namespace

uint64_t roofline_read(const std::byte* data, int64_t n_bytes) {
  constexpr int kChains = 8;
  __m256i acc[kChains];
  roofline_each<kChains>([&](auto i) { acc[i.value] = _mm256_setzero_si256(); });
  for (int64_t i = 0; i < n_bytes; i += kChains * 32) {
    const auto* p = reinterpret_cast<const __m256i*>(data + i);
    roofline_each<kChains>([&](auto c) {
      acc[c.value] = _mm256_add_epi64(acc[c.value], _mm256_load_si256(p + c.value));
    });
  }
  uint64_t sum = 0;
  roofline_each<kChains>([&](auto i) {
    uint64_t lanes[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), acc[i.value]);
    for (const uint64_t lane : lanes) sum += lane;
  });
  return sum;
}

// The f32 operands are the first eight of the sixteen.
constexpr RooflineLoop::Kind kF32 = RooflineLoop::Kind::kF32, kInt8 = RooflineLoop::Kind::kInt8,
                             kInt4 = RooflineLoop::Kind::kInt4;
const RooflineLoop kRooflineLoops[3] = {
    {"f32_fma", "vfmadd231ps ymm", kF32, 2 * kF32Chains * 8, f32_fma},
    {"int8_maddubs", "vpmaddubsw + vpmaddwd + vpaddd ymm", kInt8, 2 * kInt8Chains * 32,
     int8_maddubs},
    {"int8_maddubs8", "8 x vpmaddubsw added in 16 bits, then vpmaddwd + vpaddd ymm", kInt4,
     2 * kWideChains* kWide * 32, int8_maddubs8},
};

}  // namespace infer::kern::avx2
