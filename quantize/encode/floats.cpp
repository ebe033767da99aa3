#include "core/base/half.h"
#include "quantize/encode/rows.h"

/// F32, F16, BF16: rounded to nearest, ties to even.
namespace infer::quantize::INFER_ENCODE_LEVEL {

void encode_f32(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  std::memcpy(out, x, static_cast<size_t>(n_k) * sizeof(float));
}

void encode_f16(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  int64_t k = 0;
#if defined(__F16C__)
  for (; k + 8 <= n_k; k += 8) {
    const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + k), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(out + 2 * k, &h, sizeof(h));
  }
#endif
  for (; k < n_k; ++k) {
    const uint16_t h = f16_from_f32(x[k]);
    std::memcpy(out + 2 * k, &h, sizeof(h));
  }
}

void encode_bf16(const float* x, const float* /*importance*/, int64_t n_k, std::byte* out) {
  for (int64_t k = 0; k < n_k; ++k) {
    const uint16_t h = bf16_from_f32(x[k]);
    std::memcpy(out + 2 * k, &h, sizeof(h));
  }
}

bool all_finite(const float* x, int64_t n) {
  constexpr int kW = 16;
  const F32<kW> zero = F32<kW>::of(0.0f);
  F32<kW> sum = zero;  // 0 times a finite number is zero, times any other NaN
  int64_t i = 0;
  for (; i + kW <= n; i += kW) sum = sum + F32<kW>::load(x + i) * zero;
  alignas(64) float t[kW];
  sum.store(t);
  float all = 0.0f;
  for (const float v : t) all += v;
  for (; i < n; ++i) all += x[i] * 0.0f;
  return all == 0.0f;
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
