// F32, F16 and BF16 weights times f32 activations with eight lanes; order of summation:
// kernels/cpu/linear_float.h, with the tree  ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7)).
#include "kernels/cpu/linear_float_gemm.h"

#include "kernels/cpu/avx2/linear_act.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_vec.h"

namespace infer::kern::avx2 {
namespace {

struct Vec {
  using Reg = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr int kMaxAcc = 12;
  static constexpr int kMaxVecs = 2;
  static constexpr int kFewRows = 8;
  static constexpr int kManyRows = 160;

  [[gnu::always_inline]] static Reg zero() { return _mm256_setzero_ps(); }
  [[gnu::always_inline]] static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  [[gnu::always_inline]] static void store(float* p, Reg v) { _mm256_store_ps(p, v); }
  [[gnu::always_inline]] static Reg broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  [[gnu::always_inline]] static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  [[gnu::always_inline]] static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static Reg load(F32 /*type*/, const std::byte* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  [[gnu::always_inline]] static Reg load(F16 /*type*/, const std::byte* p) { return load_f16x8(p); }
  [[gnu::always_inline]] static Reg load(BF16 /*type*/, const std::byte* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_u8x16(p)), 16));
  }
  [[gnu::always_inline]] static __m128 reduce4(Reg a, Reg b, Reg c, Reg d) {
    const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
  }
  /// The first `count` of four sums.
  [[gnu::always_inline]] static void put(__m128 sum, int64_t count, bool first, float* out) {
    if (count >= 4) {
      _mm_storeu_ps(out, first ? sum : _mm_add_ps(_mm_loadu_ps(out), sum));
    } else {
      const __m128i mask = _mm256_castsi256_si128(lane_mask(count));
      _mm_maskstore_ps(out, mask, first ? sum : _mm_add_ps(_mm_maskload_ps(out, mask), sum));
    }
  }
  static constexpr int lane_of_leaf(int i) { return i; }
  [[gnu::always_inline]] static void put_lanes(Reg sum, int64_t count, bool first, float* out) {
    if (!first) sum = add(_mm256_maskload_ps(out, lane_mask(count)), sum);
    store_lanes(out, sum, count);
  }
  /// Rows to columns.
  [[gnu::always_inline]] static void transpose(Reg (&t)[8]) {
    Reg u[8];
    unrolled<4>([&](auto i) __attribute__((always_inline)) {  // pairs of rows
      u[2 * i.value] = _mm256_unpacklo_ps(t[2 * i.value], t[2 * i.value + 1]);
      u[2 * i.value + 1] = _mm256_unpackhi_ps(t[2 * i.value], t[2 * i.value + 1]);
    });
    unrolled<2>([&](auto i) __attribute__((always_inline)) {  // t[4 i + c]: columns c and c + 4
      constexpr int r = 4 * i.value;
      t[r] = _mm256_shuffle_ps(u[r], u[r + 2], 0x44);
      t[r + 1] = _mm256_shuffle_ps(u[r], u[r + 2], 0xee);
      t[r + 2] = _mm256_shuffle_ps(u[r + 1], u[r + 3], 0x44);
      t[r + 3] = _mm256_shuffle_ps(u[r + 1], u[r + 3], 0xee);
    });
    unrolled<4>([&](auto c) __attribute__((always_inline)) {
      const Reg upper = t[c.value + 4];
      t[c.value + 4] = _mm256_permute2f128_ps(t[c.value], upper, 0x31);
      t[c.value] = _mm256_permute2f128_ps(t[c.value], upper, 0x20);
    });
  }
};

template <class W>
int64_t packed_bytes(int64_t n, int64_t k) {
  return n * k * W::kBytes;
}

int64_t scratch_bytes(int64_t /*k*/) { return panel_bytes<Vec>(); }

template <class W>
void install(CpuKernels& table, DType type) {
  for (int mode = 0; mode < kActModes; ++mode) {
    LinearKernel& t = table.linear[mode][static_cast<int>(type)];
    t.n_align = 8;  // a vector of outputs, so that tasks end where transposed panels may
    t.file_layout = true;
    t.packed_bytes = packed_bytes<W>;
    t.pack = nullptr;
    t.act_bytes = act_bytes_f32;
    t.prepare = prepare_f32;
    t.scratch_bytes = scratch_bytes;
    t.run = run_float<Vec, W>;
  }
}

}  // namespace

void install_linear_float(CpuKernels& table) {
  install<F32>(table, DType::kF32);
  install<F16>(table, DType::kF16);
  install<BF16>(table, DType::kBF16);
}

}  // namespace infer::kern::avx2
