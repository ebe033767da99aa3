#include <immintrin.h>

#include "kernels/cpu/roofline_loops.h"

/// AVX-512 F + BW + VNNI: the recipes of AVX2 on 512-bit registers, and vpdpbusd.
namespace infer::kern::avx512 {
namespace {

/// The compiler must take the value as new here, or it would compute a product once for all.
[[gnu::always_inline]] inline void renew(__m512i& v) { __asm__ volatile("" : "+v"(v)); }
[[gnu::always_inline]] inline void renew(__m512& v) { __asm__ volatile("" : "+v"(v)); }

double sum_i32(__m512i v) {
  int32_t lanes[16];
  _mm512_storeu_si512(lanes, v);
  double sum = 0.0;
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

[[gnu::always_inline]] inline __m512i load_period16(const void* p) {
  // Unmasked, GCC 12 warns of the undefined vector inside its own header.
  return _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(static_cast<const __m128i*>(p)));
}

constexpr int kF32Chains = 16;

double f32_fma(const RooflineArgs& args) {
  __m512 a = _mm512_loadu_ps(args.f32_a);
  const __m512 b = _mm512_loadu_ps(args.f32_b);
  __m512 acc[kF32Chains];
  roofline_each<kF32Chains>([&](auto i) { acc[i.value] = _mm512_setzero_ps(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kF32Chains>([&](auto i) {
      renew(a);
      acc[i.value] = _mm512_fmadd_ps(a, b, acc[i.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kF32Chains>([&](auto i) {
    float lanes[16];
    _mm512_storeu_ps(lanes, acc[i.value]);
    for (const float lane : lanes) sum += static_cast<double>(lane);
  });
  return sum;
}

constexpr int kInt8Chains = 8;

double int8_maddubs(const RooflineArgs& args) {
  __m512i a = load_period16(args.u8_a);
  const __m512i b = load_period16(args.i8_b), ones = _mm512_set1_epi16(1);
  __m512i acc[kInt8Chains];
  roofline_each<kInt8Chains>([&](auto i) { acc[i.value] = _mm512_setzero_si512(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kInt8Chains>([&](auto i) {
      renew(a);
      acc[i.value] =
          _mm512_add_epi32(acc[i.value], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
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
  __m512i a = load_period16(args.u8_a);
  const __m512i b = load_period16(args.i8_b), ones = _mm512_set1_epi16(1);
  __m512i acc[kWideChains];
  roofline_each<kWideChains>([&](auto i) { acc[i.value] = _mm512_setzero_si512(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    __m512i words[kWideChains];
    roofline_each<kWideChains>([&](auto c) {
      renew(a);
      words[c.value] = _mm512_maddubs_epi16(a, b);
    });
    roofline_each<(kWide - 1) * kWideChains>([&](auto i) {
      constexpr int kChain = i.value % kWideChains;
      renew(a);
      words[kChain] = _mm512_add_epi16(words[kChain], _mm512_maddubs_epi16(a, b));
      renew(words[kChain]);
    });
    roofline_each<kWideChains>([&](auto c) {
      acc[c.value] = _mm512_add_epi32(acc[c.value], _mm512_madd_epi16(words[c.value], ones));
      renew(acc[c.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kWideChains>([&](auto i) { sum += sum_i32(acc[i.value]); });
  return sum;
}

constexpr int kVnniChains = 16;

double int8_vnni(const RooflineArgs& args) {
  __m512i a = load_period16(args.u8_a);
  const __m512i b = load_period16(args.i8_b);
  __m512i acc[kVnniChains];
  roofline_each<kVnniChains>([&](auto i) { acc[i.value] = _mm512_setzero_si512(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kVnniChains>([&](auto i) {
      renew(a);
      acc[i.value] = _mm512_dpbusd_epi32(acc[i.value], a, b);
      renew(acc[i.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kVnniChains>([&](auto i) { sum += sum_i32(acc[i.value]); });
  return sum;
}

}  // namespace

uint64_t roofline_read(const std::byte* data, int64_t n_bytes) {
  constexpr int kChains = 8;
  __m512i acc[kChains];
  roofline_each<kChains>([&](auto i) { acc[i.value] = _mm512_setzero_si512(); });
  for (int64_t i = 0; i < n_bytes; i += kChains * 64) {
    roofline_each<kChains>([&](auto c) {
      acc[c.value] = _mm512_add_epi64(acc[c.value], _mm512_load_si512(data + i + c.value * 64));
    });
  }
  uint64_t sum = 0;
  roofline_each<kChains>([&](auto i) {
    uint64_t lanes[8];
    _mm512_storeu_si512(lanes, acc[i.value]);
    for (const uint64_t lane : lanes) sum += lane;
  });
  return sum;
}

constexpr RooflineLoop::Kind kF32 = RooflineLoop::Kind::kF32, kInt8 = RooflineLoop::Kind::kInt8,
                             kInt4 = RooflineLoop::Kind::kInt4;
const RooflineLoop kRooflineLoops[4] = {
    {"f32_fma", "vfmadd231ps zmm", kF32, 2 * kF32Chains * 16, f32_fma},
    {"int8_maddubs", "vpmaddubsw + vpmaddwd + vpaddd zmm", kInt8, 2 * kInt8Chains * 64,
     int8_maddubs},
    {"int8_maddubs8", "8 x vpmaddubsw added in 16 bits, then vpmaddwd + vpaddd zmm", kInt4,
     2 * kWideChains* kWide * 64, int8_maddubs8},
    {"int8_vnni", "vpdpbusd zmm", kInt8, 2 * kVnniChains * 64, int8_vnni},
};

}  // namespace infer::kern::avx512
