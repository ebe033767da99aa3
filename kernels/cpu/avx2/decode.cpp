#include <immintrin.h>

#include <cstring>

#include "core/base/half.h"
#include "kernels/cpu/avx2/install.h"
#include "kernels/cpu/table.h"

/// Rows of 16-bit floats to f32, as the generic decoders give them (they quieten NaNs as the
/// instruction does).
namespace infer::kern::avx2 {
namespace {

void decode_f16(const std::byte* src, int64_t n_elem, float* dst) {
  int64_t i = 0;
  for (; i + 8 <= n_elem; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i * 2));
    _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(h));
  }
  for (; i < n_elem; ++i) {
    uint16_t h = 0;
    std::memcpy(&h, src + i * 2, sizeof(h));
    dst[i] = f32_from_f16(h);
  }
}

void decode_bf16(const std::byte* src, int64_t n_elem, float* dst) {
  int64_t i = 0;
  for (; i + 8 <= n_elem; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i * 2));
    const __m256i f = _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
    _mm256_storeu_ps(dst + i, _mm256_castsi256_ps(f));
  }
  for (; i < n_elem; ++i) {
    uint16_t h = 0;
    std::memcpy(&h, src + i * 2, sizeof(h));
    dst[i] = f32_from_bf16(h);
  }
}

}  // namespace

void install_decode(CpuKernels& table) {
  table.decode_row[static_cast<int>(DType::kF16)] = decode_f16;
  table.decode_row[static_cast<int>(DType::kBF16)] = decode_bf16;
}

}  // namespace infer::kern::avx2
