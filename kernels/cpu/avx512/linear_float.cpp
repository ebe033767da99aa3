// F32, F16 and BF16 weights times f32 activations with sixteen lanes; order of summation:
// kernels/cpu/linear_float.h, with the tree of AVX2 over a0 + a8, a1 + a9, ..., a7 + a15.
#include "kernels/cpu/linear_float_gemm.h"

#include "kernels/cpu/avx512/linear_install.h"
#include "kernels/cpu/avx512/linear_vec.h"

namespace infer::kern::avx512 {
namespace {

struct Vec {
  using Reg = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr int kMaxAcc = 24;
  static constexpr int kMaxVecs = 3;
  static constexpr int kFewRows = 12;
  static constexpr int kManyRows = 128;

  [[gnu::always_inline]] static Reg zero() { return _mm512_setzero_ps(); }
  [[gnu::always_inline]] static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  [[gnu::always_inline]] static void store(float* p, Reg v) { _mm512_store_ps(p, v); }
  [[gnu::always_inline]] static Reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
  [[gnu::always_inline]] static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  [[gnu::always_inline]] static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg load(F32 /*type*/, const std::byte* p) {
    return _mm512_loadu_ps(reinterpret_cast<const float*>(p));
  }
  [[gnu::always_inline]] static Reg load(F16 /*type*/, const std::byte* p) {
    return load_f16x16(p);
  }
  [[gnu::always_inline]] static Reg load(BF16 /*type*/, const std::byte* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(i32_from_u16x16(bits), 16));
  }
  [[gnu::always_inline]] static __m128 reduce4(Reg a, Reg b, Reg c, Reg d) {
    const __m256 t =
        _mm256_hadd_ps(_mm256_hadd_ps(folded(a), folded(b)), _mm256_hadd_ps(folded(c), folded(d)));
    return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
  }
  /// The first `count` of four sums.
  [[gnu::always_inline]] static void put(__m128 sum, int64_t count, bool first, float* out) {
    if (count >= 4) {
      _mm_storeu_ps(out, first ? sum : _mm_add_ps(_mm_loadu_ps(out), sum));
    } else {
      const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
      const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(count)), lane);
      _mm_maskstore_ps(out, mask, first ? sum : _mm_add_ps(_mm_maskload_ps(out, mask), sum));
    }
  }

  static constexpr int lane_of_leaf(int i) { return i / 2 + i % 2 * 8; }
  [[gnu::always_inline]] static void put_lanes(Reg sum, int64_t count, bool first, float* out) {
    if (!first) sum = add(load_lanes(out, count), sum);
    store_lanes(out, sum, count);
  }
  /// Rows to columns.
  [[gnu::always_inline]] static void transpose(Reg (&t)[16]) {
    Reg u[16];
    unrolled<8>([&](auto i) __attribute__((always_inline)) {  // pairs of rows
      u[2 * i.value] = _mm512_unpacklo_ps(t[2 * i.value], t[2 * i.value + 1]);
      u[2 * i.value + 1] = _mm512_unpackhi_ps(t[2 * i.value], t[2 * i.value + 1]);
    });
    unrolled<4>([&](auto i) __attribute__((always_inline)) {  // t[4 i + c]: columns c, c + 4, ...
      constexpr int r = 4 * i.value;
      t[r] = _mm512_shuffle_ps(u[r], u[r + 2], 0x44);
      t[r + 1] = _mm512_shuffle_ps(u[r], u[r + 2], 0xee);
      t[r + 2] = _mm512_shuffle_ps(u[r + 1], u[r + 3], 0x44);
      t[r + 3] = _mm512_shuffle_ps(u[r + 1], u[r + 3], 0xee);
    });
    unrolled<4>([&](auto c) __attribute__((always_inline)) {
      constexpr int i = c.value;
      u[i] = shuffle_quarters<0x88>(t[i], t[i + 4]);
      u[i + 4] = shuffle_quarters<0xdd>(t[i], t[i + 4]);
      u[i + 8] = shuffle_quarters<0x88>(t[i + 8], t[i + 12]);
      u[i + 12] = shuffle_quarters<0xdd>(t[i + 8], t[i + 12]);
    });
    unrolled<4>([&](auto c) __attribute__((always_inline)) {
      constexpr int i = c.value;
      t[i] = shuffle_quarters<0x88>(u[i], u[i + 8]);
      t[i + 8] = shuffle_quarters<0xdd>(u[i], u[i + 8]);
      t[i + 4] = shuffle_quarters<0x88>(u[i + 4], u[i + 12]);
      t[i + 12] = shuffle_quarters<0xdd>(u[i + 4], u[i + 12]);
    });
  }

 private:
  [[gnu::always_inline]] static __m256 folded(Reg v) {
    const __m512d halves = _mm512_castps_pd(v);
    return _mm256_add_ps(_mm512_castps512_ps256(v),
                         _mm256_castpd_ps(_mm512_extractf64x4_pd(halves, 1)));
  }
};

int64_t scratch_bytes(int64_t /*k*/) { return panel_bytes<Vec>(); }

template <class W>
void install(CpuKernels& table, DType type) {
  for (int mode = 0; mode < kActModes; ++mode) {
    LinearKernel& t = table.linear[mode][static_cast<int>(type)];
    t.scratch_bytes = scratch_bytes;
    t.run = run_float<Vec, W>;
  }
}

}  // namespace

/// Layout and preparation are those of AVX2, whose table is installed first.
void install_linear_float(CpuKernels& table) {
  install<F32>(table, DType::kF32);
  install<F16>(table, DType::kF16);
  install<BF16>(table, DType::kBF16);
}

}  // namespace infer::kern::avx512
