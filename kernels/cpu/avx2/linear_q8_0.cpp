// Q8_0. With 8-bit activations the matrix is used as it lies in the file, so that nothing has to be
// packed (and no second copy of it committed) before the first token. One activation row: lanes
// along k, a horizontal sum of eight outputs a block. More rows: a panel is packed into scratch and
// meets all of them. Both are the orders of linear_fast.h with the same exact integer sums, hence
// the same bits. With f32 activations panels are packed at load: scales f16 [8], levels.
#include "core/base/quant_blocks.h"
#include "kernels/cpu/avx2/linear_fast.h"
#include "kernels/cpu/avx2/linear_install.h"
#include "kernels/cpu/avx2/linear_panel.h"

namespace infer::kern::avx2 {
namespace {

struct Q8_0 : panel::Q8_0<kPanelRows> {
  [[gnu::always_inline]] static __m256i quad(const uint8_t* unit, int /*sub*/, int i) {
    return load_u8x32(unit + kQsAt + 32 * i);
  }
  [[gnu::always_inline]] static FastScales scales(const uint8_t* unit, int /*sub*/) {
    FastScales s;
    s.d = load_f16x8(unit);
    s.neg_min = _mm256_setzero_ps();
    s.mul_lo = s.mul_hi = _mm256_setzero_si256();
    return s;
  }
  static void decode(const uint8_t* unit, int /*sub*/, float* dst) {
    const __m256 d = load_f16x8(unit);
    for (int i = 0; i < 8; ++i) decode_signed_quad(quad(unit, 0, i), d, dst + 4 * i * kPanelRows);
  }
};

constexpr int64_t kBlockBytes = sizeof(BlockQ8_0);

/// The rows of the file that make a panel; the last one stands in for those past the end.
struct FileRows {
  const uint8_t* row[kPanelRows];

  FileRows(const LinearArgs& a, int64_t j) {
    const int64_t row_bytes = a.k / 32 * kBlockBytes;
    for (int64_t l = 0; l < kPanelRows; ++l) {
      row[l] = reinterpret_cast<const uint8_t*>(a.w) + min_of(j + l, a.n - 1) * row_bytes;
    }
  }
};

/// The eight 32-bit sums of eight vectors.
[[gnu::always_inline]] inline __m256i sums_across(const __m256i* p) {
  const __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
  const __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(p[4], p[5]), _mm256_hadd_epi32(p[6], p[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                          _mm256_permute2x128_si256(a, b, 0x31));
}

/// One activation row against eight rows of the file. Rows are too short for the hardware to see
/// the next ones come: they are fetched in the file's order.
void row_times_panel(const LinearArgs& a, int64_t j, const ActBlock* x, float* out) {
  const FileRows file(a, j);
  const uint8_t* ahead = file.row[0];
  if (j + 2 * kPanelRows <= a.n) ahead += kPanelRows * (a.k / 32) * kBlockBytes;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 acc = _mm256_setzero_ps();
  for (int64_t at = 0; at < a.k / 32 * kBlockBytes; at += kBlockBytes, ++x) {
    for (int64_t i = 0; i < kPanelRows * kBlockBytes; i += 64)
      _mm_prefetch(ahead + kPanelRows * at + i, _MM_HINT_T1);
    const __m256i q = load_u8x32(x->q);
    __m256i sums[kPanelRows];
    __m128i d = _mm_setzero_si128();
    unrolled<kPanelRows>([&](auto lane) __attribute__((always_inline)) {
      constexpr int l = decltype(lane)::value;
      const uint8_t* block = file.row[l] + at;
      const __m256i w = load_u8x32(block + offsetof(BlockQ8_0, qs));
      const __m256i part = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
      sums[l] = _mm256_madd_epi16(part, ones);
      uint16_t bits;
      __builtin_memcpy(&bits, block, 2);
      d = _mm_insert_epi16(d, bits, l);
    });
    const __m256 scale = _mm256_mul_ps(_mm256_cvtph_ps(d), _mm256_broadcast_ss(&x->d));
    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums_across(sums)), scale, acc);
  }
  store_lanes(out, acc, min_of(kPanelRows, a.n_end - j));
}

/// Eight rows of eight 32-bit words to eight columns.
[[gnu::always_inline]] inline void transpose(const __m256i* in, __m256i* out) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(in[2 * i], in[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(in[2 * i], in[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    out[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    out[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

void pack_panel(const LinearArgs& a, int64_t j, uint8_t* unit) {
  const FileRows file(a, j);
  for (int64_t at = 0; at < a.k / 32 * kBlockBytes; at += kBlockBytes, unit += Q8_0::kUnitBytes) {
    __m256i rows[kPanelRows], quads[8];
    for (int l = 0; l < kPanelRows; ++l) {
      __builtin_memcpy(unit + 2 * l, file.row[l] + at, 2);
      rows[l] = load_u8x32(file.row[l] + at + offsetof(BlockQ8_0, qs));
    }
    transpose(rows, quads);
    for (int i = 0; i < 8; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(unit + Q8_0::kQsAt + 32 * i), quads[i]);
    }
  }
}

template <int kRows>
void panel_tile(const LinearArgs& a, int64_t j, int64_t r) {
  fast_tile<Q8_0, kRows>(reinterpret_cast<const uint8_t*>(a.scratch), a.k / 32,
                         reinterpret_cast<const ActBlock*>(a.act + r * a.act_stride), a.act_stride,
                         a.out + r * a.out_stride + (j - a.n_begin), a.out_stride,
                         min_of(kPanelRows, a.n_end - j));
}

void run_file(const LinearArgs& a) {
  for (int64_t j = a.n_begin; j < a.n_end; j += kPanelRows) {
    if (a.m == 1) {
      row_times_panel(a, j, reinterpret_cast<const ActBlock*>(a.act), a.out + (j - a.n_begin));
      continue;
    }
    pack_panel(a, j, reinterpret_cast<uint8_t*>(a.scratch));
    int64_t r = 0;
    for (; r + 4 <= a.m; r += 4) panel_tile<4>(a, j, r);
    if (a.m - r == 3) panel_tile<3>(a, j, r);
    if (a.m - r == 2) panel_tile<2>(a, j, r);
    if (a.m - r == 1) panel_tile<1>(a, j, r);
  }
}

}  // namespace

void install_linear_q8_0(CpuKernels& table) {
  FastKernel<Q8_0>::install(table, DType::kQ8_0);
  LinearKernel& t = table.linear[static_cast<int>(ActMode::kFast)][static_cast<int>(DType::kQ8_0)];
  t.file_layout = true;
  t.pack = nullptr;
  t.packed_bytes = [](int64_t n, int64_t k) { return n * (k / 32) * kBlockBytes; };
  t.scratch_bytes = [](int64_t k) { return k / 32 * Q8_0::kUnitBytes; };
  t.run = run_file;
}

}  // namespace infer::kern::avx2
