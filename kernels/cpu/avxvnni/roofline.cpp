#include <immintrin.h>

#include "kernels/cpu/roofline_loops.h"

/// AVX-VNNI: vpdpbusd on 256-bit registers, on CPUs without AVX-512 (Alder Lake and later).
namespace infer::kern::avxvnni {
namespace {

[[gnu::always_inline]] inline void renew(__m256i& v) { __asm__ volatile("" : "+x"(v)); }

[[gnu::always_inline]] inline __m256i load_period16(const void* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

constexpr int kChains = 12;  // 2 a cycle with a latency of 5

double int8_vnni(const RooflineArgs& args) {
  __m256i a = load_period16(args.u8_a);
  const __m256i b = load_period16(args.i8_b);
  __m256i acc[kChains];
  roofline_each<kChains>([&](auto i) { acc[i.value] = _mm256_setzero_si256(); });
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kChains>([&](auto i) {
      renew(a);
      acc[i.value] = _mm256_dpbusd_avx_epi32(acc[i.value], a, b);
      renew(acc[i.value]);
    });
  }
  double sum = 0.0;
  roofline_each<kChains>([&](auto i) {
    int32_t lanes[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), acc[i.value]);
    for (const int32_t lane : lanes) sum += lane;
  });
  return sum;
}

}  // namespace

const RooflineLoop kRooflineLoops[1] = {
    {"int8_vnni", "vpdpbusd ymm", RooflineLoop::Kind::kInt8, 2 * kChains * 32, int8_vnni},
};

}  // namespace infer::kern::avxvnni
