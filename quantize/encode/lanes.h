#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/// W floats that are worked on together, in as many registers of the level being compiled as that
/// takes. Every operation is IEEE's, lane by lane, and nothing is fused: a level changes how fast a
/// result comes, never which. Each level has a namespace of its own (style.md 2.6).
#if !defined(INFER_ENCODE_LEVEL)
#define INFER_ENCODE_LEVEL generic
#endif

namespace infer::quantize::INFER_ENCODE_LEVEL {

#if defined(__AVX512F__)
inline constexpr int kRegister = 16;
#elif defined(__AVX2__)
inline constexpr int kRegister = 8;
#else
inline constexpr int kRegister = 4;
#endif

template <int N>
struct Register;
template <>
struct Register<4> {
  using F = float __attribute__((vector_size(16)));
  using I = int32_t __attribute__((vector_size(16)));
};
template <>
struct Register<8> {
  using F = float __attribute__((vector_size(32)));
  using I = int32_t __attribute__((vector_size(32)));
};
template <>
struct Register<16> {
  using F = float __attribute__((vector_size(64)));
  using I = int32_t __attribute__((vector_size(64)));
};

#define INFER_INLINE [[gnu::always_inline]] inline

/// A lane of a mask is 0 or -1.
template <int W>
struct I32 {
  static constexpr int kN = W < kRegister ? W : kRegister;
  using R = typename Register<kN>::I;
  R v[W / kN];
};

template <int W>
struct F32 {
  static constexpr int kN = W < kRegister ? W : kRegister;
  static constexpr int kParts = W / kN;
  using R = typename Register<kN>::F;
  R v[kParts];

  INFER_INLINE static F32 of(float x) {
    F32 r;
    for (int p = 0; p < kParts; ++p) r.v[p] = x - R{};
    return r;
  }
  INFER_INLINE static F32 load(const float* x) {
    F32 r;
    for (int p = 0; p < kParts; ++p) std::memcpy(&r.v[p], x + p * kN, sizeof(R));
    return r;
  }
  INFER_INLINE void store(float* x) const {
    for (int p = 0; p < kParts; ++p) std::memcpy(x + p * kN, &v[p], sizeof(R));
  }
};

#define INFER_LANES_BINARY(op)                                          \
  template <int W>                                                      \
  INFER_INLINE F32<W> operator op(const F32<W>& a, const F32<W>& b) {   \
    F32<W> r;                                                           \
    for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = a.v[p] op b.v[p]; \
    return r;                                                           \
  }
INFER_LANES_BINARY(+)
INFER_LANES_BINARY(-)
INFER_LANES_BINARY(*)
INFER_LANES_BINARY(/)
#undef INFER_LANES_BINARY

#define INFER_LANES_COMPARE(op)                                         \
  template <int W>                                                      \
  INFER_INLINE I32<W> operator op(const F32<W>& a, const F32<W>& b) {   \
    I32<W> r;                                                           \
    for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = a.v[p] op b.v[p]; \
    return r;                                                           \
  }
INFER_LANES_COMPARE(<)
INFER_LANES_COMPARE(>)
INFER_LANES_COMPARE(==)
#undef INFER_LANES_COMPARE

template <int W>
INFER_INLINE I32<W> operator&(const I32<W>& a, const I32<W>& b) {
  I32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = a.v[p] & b.v[p];
  return r;
}

template <int W>
INFER_INLINE F32<W> select(const I32<W>& m, const F32<W>& yes, const F32<W>& no) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = m.v[p] ? yes.v[p] : no.v[p];
  return r;
}

template <int N>
INFER_INLINE typename Register<N>::F native_min(typename Register<N>::F a,
                                                typename Register<N>::F b) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_min_ps(a, b);
#endif
#if defined(__AVX__)
  if constexpr (N == 8) return _mm256_min_ps(a, b);
#endif
#if defined(__SSE2__)
  if constexpr (N == 4) return _mm_min_ps(a, b);
#endif
  return a < b ? a : b;
}

/// a < b ? a : b, on every level.
template <int W>
INFER_INLINE F32<W> min(const F32<W>& a, const F32<W>& b) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = native_min<F32<W>::kN>(a.v[p], b.v[p]);
  return r;
}
template <int N>
INFER_INLINE typename Register<N>::F native_max(typename Register<N>::F a,
                                                typename Register<N>::F b) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_max_ps(a, b);
#endif
#if defined(__AVX__)
  if constexpr (N == 8) return _mm256_max_ps(a, b);
#endif
#if defined(__SSE2__)
  if constexpr (N == 4) return _mm_max_ps(a, b);
#endif
  return a > b ? a : b;
}
template <int W>
INFER_INLINE F32<W> max(const F32<W>& a, const F32<W>& b) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = native_max<F32<W>::kN>(a.v[p], b.v[p]);
  return r;
}
template <int W>
INFER_INLINE F32<W> clamp(const F32<W>& x, const F32<W>& lo, const F32<W>& hi) {
  return min(max(x, lo), hi);
}

template <int N>
INFER_INLINE typename Register<N>::F native_round(typename Register<N>::F a) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT);
#endif
#if defined(__AVX__)
  if constexpr (N == 8) return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT);
#endif
  const typename Register<N>::F magic = 12582912.0f - typename Register<N>::F{};
  return (a + magic) - magic;  // 1.5 * 2^23: the adder rounds
}
template <int N>
INFER_INLINE typename Register<N>::F native_sqrt(typename Register<N>::F a) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_sqrt_ps(a);
#endif
#if defined(__AVX__)
  if constexpr (N == 8) return _mm256_sqrt_ps(a);
#endif
#if defined(__SSE2__)
  if constexpr (N == 4) return _mm_sqrt_ps(a);
#endif
  for (int i = 0; i < N; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
template <int W>
INFER_INLINE F32<W> sqrt(const F32<W>& x) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = native_sqrt<F32<W>::kN>(x.v[p]);
  return r;
}

/// To the nearest integer, ties to even; |x| < 2^22. Zeros may differ in sign between levels.
template <int W>
INFER_INLINE F32<W> round(const F32<W>& x) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) r.v[p] = native_round<F32<W>::kN>(x.v[p]);
  return r;
}
template <int W>
INFER_INLINE F32<W> abs(const F32<W>& x) {
  F32<W> r;
  for (int p = 0; p < F32<W>::kParts; ++p) {
    using I = typename I32<W>::R;
    r.v[p] = reinterpret_cast<typename F32<W>::R>(reinterpret_cast<I>(x.v[p]) & 0x7fffffff);
  }
  return r;
}
/// in [n_row][n_col] -> out [n_col][n_row]; both are multiples of 4.
template <int n_row, int n_col>
INFER_INLINE void transpose(const float* in, float* out) {
  using F = typename Register<4>::F;
  for (int r = 0; r < n_row; r += 4) {
    for (int c = 0; c < n_col; c += 4) {
      F a[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&a[i], in + (r + i) * n_col + c, sizeof(F));
      const F t0 = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
      const F t1 = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
      const F t2 = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
      const F t3 = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
      const F b[4] = {
          __builtin_shufflevector(t0, t1, 0, 1, 4, 5), __builtin_shufflevector(t0, t1, 2, 3, 6, 7),
          __builtin_shufflevector(t2, t3, 0, 1, 4, 5), __builtin_shufflevector(t2, t3, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(out + (c + i) * n_row + r, &b[i], sizeof(F));
    }
  }
}

/// The largest lane.
template <int W>
INFER_INLINE float largest_of(const F32<W>& x) {
  typename F32<W>::R all = x.v[0];
  for (int p = 1; p < F32<W>::kParts; ++p) all = native_max<F32<W>::kN>(all, x.v[p]);
  typename Register<4>::F four;
  if constexpr (F32<W>::kN == 16) {
    const auto eight =
        native_max<8>(__builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7),
                      __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15));
    four = native_max<4>(__builtin_shufflevector(eight, eight, 0, 1, 2, 3),
                         __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  } else if constexpr (F32<W>::kN == 8) {
    four = native_max<4>(__builtin_shufflevector(all, all, 0, 1, 2, 3),
                         __builtin_shufflevector(all, all, 4, 5, 6, 7));
  } else {
    four = all;
  }
  four = native_max<4>(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  const float a = four[0], b = four[1];
  return a > b ? a : b;
}

/// Sixteen bytes.
using Bytes16 = uint8_t __attribute__((vector_size(16)));

/// Cuts off what is behind the point; lanes in [-128, 127] or [0, 255], as `signed_bytes` says, and
/// limited to that.
INFER_INLINE Bytes16 truncated_bytes(const F32<16>& x, bool signed_bytes) {
#if defined(__AVX512F__)
  const __m512i i = _mm512_cvttps_epi32(x.v[0]);
  const __m128i q = signed_bytes
                        ? _mm512_cvtsepi32_epi8(i)
                        : _mm512_cvtusepi32_epi8(_mm512_max_epi32(i, _mm512_setzero_si512()));
  return reinterpret_cast<Bytes16>(q);
#elif defined(__AVX2__)
  const __m256i i = _mm256_packs_epi32(_mm256_cvttps_epi32(x.v[0]), _mm256_cvttps_epi32(x.v[1]));
  const __m256i w = _mm256_permute4x64_epi64(i, 0xd8);  // the pack works within halves
  const __m128i lo = _mm256_castsi256_si128(w), hi = _mm256_extracti128_si256(w, 1);
  return reinterpret_cast<Bytes16>(signed_bytes ? _mm_packs_epi16(lo, hi)
                                                : _mm_packus_epi16(lo, hi));
#elif defined(__SSE2__)
  const __m128i lo = _mm_packs_epi32(_mm_cvttps_epi32(x.v[0]), _mm_cvttps_epi32(x.v[1]));
  const __m128i hi = _mm_packs_epi32(_mm_cvttps_epi32(x.v[2]), _mm_cvttps_epi32(x.v[3]));
  return reinterpret_cast<Bytes16>(signed_bytes ? _mm_packs_epi16(lo, hi)
                                                : _mm_packus_epi16(lo, hi));
#else
  alignas(64) float t[16];
  x.store(t);
  Bytes16 r{};
  for (int i = 0; i < 16; ++i) {
    const int q = static_cast<int>(t[i]);
    const int least = signed_bytes ? -128 : 0, most = signed_bytes ? 127 : 255;
    r[i] = static_cast<uint8_t>(q < least ? least : q > most ? most : q);
  }
  return r;
#endif
}
/// Bit i is bit 4 of byte i.
INFER_INLINE uint32_t fifth_bits(const Bytes16& q) {
#if defined(__SSE2__)
  const __m128i top = _mm_slli_epi16(reinterpret_cast<__m128i>(q), 3);
  return static_cast<uint32_t>(_mm_movemask_epi8(top));
#else
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  return bits;
#endif
}

/// Each lane becomes the sum over its group of G lanes, added first to last.
template <int G, int W>
INFER_INLINE F32<W> group_sum(const F32<W>& x) {
  alignas(64) float t[W];
  x.store(t);
  for (int g = 0; g < W; g += G) {
    float s = t[g];
    for (int i = 1; i < G; ++i) s += t[g + i];
    for (int i = 0; i < G; ++i) t[g + i] = s;
  }
  return F32<W>::load(t);
}
/// Each lane becomes the one of its group of G lanes that is farthest from zero, the first of
/// equals.
template <int G, int W>
INFER_INLINE F32<W> group_extreme(const F32<W>& x) {
  alignas(64) float t[W];
  x.store(t);
  for (int g = 0; g < W; g += G) {
    float s = t[g];
    for (int i = 1; i < G; ++i) s = __builtin_fabsf(t[g + i]) > __builtin_fabsf(s) ? t[g + i] : s;
    for (int i = 0; i < G; ++i) t[g + i] = s;
  }
  return F32<W>::load(t);
}
/// Every lane goes through f of one float.
template <int W, class Fn>
INFER_INLINE F32<W> per_lane(const F32<W>& x, Fn&& f) {
  alignas(64) float t[W];
  x.store(t);
  for (float& v : t) v = f(v);
  return F32<W>::load(t);
}
/// 1 / x, and 0 for 0.
template <int W>
INFER_INLINE F32<W> inverse_of(const F32<W>& x) {
  const F32<W> zero = F32<W>::of(0.0f);
  const F32<W> one = F32<W>::of(1.0f);
  const I32<W> none = x == zero;
  return select(none, zero, one / select(none, one, x));
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
