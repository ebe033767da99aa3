// F32, F16 and BF16 weights in the file's layout times f32 activations.
//
// Reduction order, the same for every m, n range and thread: lanes along k, one chain of eight
// lanes per output,
//   acc[l] = fma(w[8i + l], x[8i + l], acc[l])  for i = 0, 1, 2, ...  starting from +0, a last
//   partial step with zeros;
// then the tree  ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)).
// Tiles keep 4 x 1, 4 x 2 or 4 x 3 chains in flight. Cutting k into stretches stores and reloads
// the lanes, which changes no bit.
#include "kernels/cpu/avx2/linear_act.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_vec.h"

namespace infer::kern::avx2 {
namespace {

constexpr int64_t kLanes = 8;
constexpr int64_t kTileOutputs = 4;  ///< most weight rows in a tile
constexpr int64_t kStretch = 512;    ///< elements of k at a time when many rows share the weights
constexpr int64_t kBlockRows = 24;   ///< activation rows that share a stretch of weights
constexpr int64_t kAccFloats = kTileOutputs * kBlockRows * kLanes;

struct F32 {
  static constexpr int64_t kBytes = 4;
  [[gnu::always_inline]] static __m256 load(const std::byte* w) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(w));
  }
};
struct F16 {
  static constexpr int64_t kBytes = 2;
  [[gnu::always_inline]] static __m256 load(const std::byte* w) { return load_f16x8(w); }
};
struct BF16 {
  static constexpr int64_t kBytes = 2;
  [[gnu::always_inline]] static __m256 load(const std::byte* w) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_u8x16(w)), 16));
  }
};

/// The first `count` (< 8) elements, zeros after them; reads no byte more.
template <class W>
[[gnu::always_inline]] inline __m256 load_tail(const std::byte* w, int64_t count) {
  alignas(32) std::byte buffer[32] = {};
  __builtin_memcpy(buffer, w, static_cast<size_t>(count * W::kBytes));
  return W::load(buffer);
}

[[gnu::always_inline]] inline float reduce(__m256 v) {
  __m128 t =
      _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));  // a0 + a4, a1 + a5, ...
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

/// Weight rows at w, w + w_stride, ...; activation rows at x, x + x_stride, ...; k elements from
/// there.
struct Tile {
  const std::byte* w = nullptr;
  int64_t w_stride = 0;  ///< bytes
  const std::byte* x = nullptr;
  int64_t x_stride = 0;  ///< bytes
  int64_t k = 0;
  float* acc = nullptr;  ///< [row][kTileOutputs][kLanes]
  /// With one activation row: weights that are wanted next, fetched in the order of the file while
  /// these are used. Rows are too short, and lie too far apart, for the hardware to see them come.
  const std::byte* ahead = nullptr;
};

template <class W, int kOutputs, int kRows>
void tile(const Tile& t) {
  __m256 acc[kRows][kOutputs];
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o)
      acc[r][o] = _mm256_loadu_ps(t.acc + (r * kTileOutputs + o) * kLanes);
  }
  const std::byte* w = t.w;
  const float* x = reinterpret_cast<const float*>(t.x);
  const int64_t x_stride = t.x_stride / static_cast<int64_t>(sizeof(float));
  int64_t i = 0;
  for (; i + kLanes <= t.k; i += kLanes, w += kLanes * W::kBytes, x += kLanes) {
    if constexpr (kRows == 1) {
      for (int64_t b = 0; b < kOutputs * kLanes * W::kBytes; b += 64)
        _mm_prefetch(t.ahead + i * kOutputs * W::kBytes + b, _MM_HINT_T1);
    }
    __m256 xv[kRows];
    for (int r = 0; r < kRows; ++r) xv[r] = _mm256_loadu_ps(x + r * x_stride);
    for (int o = 0; o < kOutputs; ++o) {
      const __m256 wv = W::load(w + o * t.w_stride);
      for (int r = 0; r < kRows; ++r) acc[r][o] = _mm256_fmadd_ps(wv, xv[r], acc[r][o]);
    }
  }
  if (i < t.k) {
    for (int o = 0; o < kOutputs; ++o) {
      const __m256 wv = load_tail<W>(w + o * t.w_stride, t.k - i);
      for (int r = 0; r < kRows; ++r) {
        acc[r][o] = _mm256_fmadd_ps(wv, _mm256_loadu_ps(x + r * x_stride), acc[r][o]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o)
      _mm256_storeu_ps(t.acc + (r * kTileOutputs + o) * kLanes, acc[r][o]);
  }
}

/// kOutputs weight rows against m activation rows.
template <class W, int kOutputs>
void tile_rows(Tile t, int64_t m) {
  const auto advance = [&t](int64_t rows) {
    t.x += rows * t.x_stride;
    t.acc += rows * kTileOutputs * kLanes;
  };
  for (; m >= 3 && m != 4; m -= 3, advance(3)) tile<W, kOutputs, 3>(t);
  for (; m >= 2; m -= 2, advance(2)) tile<W, kOutputs, 2>(t);
  if (m == 1) tile<W, kOutputs, 1>(t);
}

/// Outputs [j, j + kOutputs) of activation rows [r, r + m), m <= kBlockRows.
template <class W, int kOutputs>
void outputs(const LinearArgs& a, int64_t j, int64_t r, int64_t m) {
  float* acc = reinterpret_cast<float*>(a.scratch);
  const int64_t stretch = m <= 3 ? a.k : kStretch;
  __builtin_memset(acc, 0, static_cast<size_t>(m * kTileOutputs * kLanes) * sizeof(float));
  Tile t;
  t.x_stride = a.act_stride, t.acc = acc, t.w_stride = a.k * W::kBytes;
  for (int64_t k0 = 0; k0 < a.k; k0 += stretch) {
    t.w = a.w + j * t.w_stride + k0 * W::kBytes;
    t.x = a.act + r * a.act_stride + k0 * static_cast<int64_t>(sizeof(float));
    t.k = min_of(stretch, a.k - k0);
    t.ahead = j + 2 * kOutputs <= a.n_end ? t.w + kOutputs * t.w_stride : t.w;
    tile_rows<W, kOutputs>(t, m);
  }
  for (int64_t i = 0; i < m; ++i) {
    float* out = a.out + (r + i) * a.out_stride + (j - a.n_begin);
    for (int o = 0; o < kOutputs; ++o)
      out[o] = reduce(_mm256_loadu_ps(acc + (i * kTileOutputs + o) * kLanes));
  }
}

template <class W>
void run(const LinearArgs& a) {
  for (int64_t r = 0; r < a.m; r += kBlockRows) {
    const int64_t m = min_of(kBlockRows, a.m - r);
    int64_t j = a.n_begin;
    for (; j + 4 <= a.n_end; j += 4) outputs<W, 4>(a, j, r, m);
    for (; j < a.n_end; ++j) outputs<W, 1>(a, j, r, m);
  }
}

template <class W>
int64_t packed_bytes(int64_t n, int64_t k) {
  return n * k * W::kBytes;
}

int64_t scratch_bytes(int64_t /*k*/) { return kAccFloats * static_cast<int64_t>(sizeof(float)); }

template <class W>
void install(CpuKernels& table, DType type) {
  for (int mode = 0; mode < kActModes; ++mode) {
    LinearKernel& t = table.linear[mode][static_cast<int>(type)];
    t.n_align = 1;
    t.file_layout = true;
    t.packed_bytes = packed_bytes<W>;
    t.pack = nullptr;
    t.act_bytes = act_bytes_f32;
    t.prepare = prepare_f32;
    t.scratch_bytes = scratch_bytes;
    t.run = run<W>;
  }
}

}  // namespace

void install_linear_float(CpuKernels& table) {
  install<F32>(table, DType::kF32);
  install<F16>(table, DType::kF16);
  install<BF16>(table, DType::kBF16);
}

}  // namespace infer::kern::avx2
