#pragma once

// Panels of sixteen outputs (lanes along n) times 8-bit activations by vpdpbusd, for every
// quantised type. Panels and their units: kernels/cpu/panel.h.
//
// Reduction order: that of avx2/linear_fast.h, so both levels give the same bits. Integer sums of a
// block are exact here without care for 16 bits: vpdpbusd adds four products of u8 levels and i8
// activations in 32. Levels below zero are read as q + kOffset >= 0, and each sum starts from
// -kOffset times the activations' own sum.
//
// Levels of a block are unpacked once for the up to 16 activation rows of a tile; the sums of four
// rows advance together, because a vpdpbusd waits for the one before it in its chain.
#include "kernels/cpu/avx512/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx512 {

inline constexpr int kPanelRows = 16;    ///< outputs in a panel: the lanes
inline constexpr int kTileRows = 16;     ///< most activation rows in a tile
inline constexpr int64_t kMaxRows = 64;  ///< most activation rows in a block

/// What 32 elements of a panel need besides their levels; a type fills what it uses.
struct BlockScales {
  __m512 d;                ///< factor of the integer sum
  __m512 neg_min;          ///< -m_w; with split minima their common factor
  __m512 mul;              ///< f32 of the integer scale of all 32
  __m512i mul_lo, mul_hi;  ///< i32, of the halves
  __m512i offset;  ///< i16 pairs, times the sums of the activations' halves: where sums start
  __m512i mins;    ///< i16 pairs, split minima
};

/// How integer scales and minima enter.
enum class ScaleKind : uint8_t { kNone, kOne, kSplit };
enum class MinKind : uint8_t { kNone, kOne, kSplit };

[[gnu::always_inline]] inline const ActBlock& act_row(const std::byte* x, int64_t stride, int r) {
  return *reinterpret_cast<const ActBlock*>(x + r * stride);
}

/// Where the sums of a type with an offset start: -kOffset times the sum of a block's activations,
/// or of each half of them.
template <class T>
inline constexpr int kStarts = T::kOffset == 0                  ? 0
                               : T::kScale == ScaleKind::kSplit ? 2
                                                                : 1;

/// starts [n_block][kStarts][kTileRows] of a tile of activation rows, so that no panel has to
/// multiply for them.
template <class T>
void fill_starts(const std::byte* x, int64_t x_stride, int64_t n_block, int32_t* starts) {
  for (int64_t i = 0; i < n_block; ++i, x += sizeof(ActBlock), starts += kStarts<T> * kTileRows) {
    for (int r = 0; r < kTileRows; ++r) {
      const int16_t* h = act_row(x, x_stride, r).h;
      if constexpr (kStarts<T> == 2) {
        starts[r] = -T::kOffset * h[0];
        starts[kTileRows + r] = -T::kOffset * h[1];
      } else {
        starts[r] = -T::kOffset * (h[0] + h[1]);
      }
    }
  }
}

/// lo[r], hi[r] = integer sums of both halves of one block; without split scales lo alone, of all.
template <class T, int kRows>
[[gnu::always_inline]] inline void half_sums(const __m512i* levels, const std::byte* x,
                                             int64_t x_stride, __m512i* lo, __m512i* hi) {
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    constexpr int i = decltype(quad)::value;
    constexpr bool kUpper = T::kScale == ScaleKind::kSplit && i >= 4;
    unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
      constexpr int r = decltype(row)::value;
      __m512i& sum = kUpper ? hi[r] : lo[r];
      const __m512i q = broadcast_u32(act_row(x, x_stride, r).q + 4 * i);
      sum = _mm512_dpbusd_epi32(sum, levels[i], q);
    });
  });
}

/// t[r] = f32 of the integer sums of one block, exact, of kRows rows. starts: of these rows, or
/// nullptr, known at compile time.
template <class T, int kRows>
[[gnu::always_inline]] inline void block_sums(const __m512i* levels, const BlockScales& s,
                                              const std::byte* x, int64_t x_stride,
                                              const int32_t* starts, __m512* t) {
  constexpr bool kSplit = T::kScale == ScaleKind::kSplit;
  const bool given = starts != nullptr;
  __m512i lo[kRows], hi[kRows], offset[kRows];
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    constexpr int r = decltype(row)::value;
    lo[r] = hi[r] = offset[r] = _mm512_setzero_si512();
    if constexpr (kStarts<T> != 0) {
      if (given) {
        lo[r] = broadcast_u32(starts + r);
        if (kSplit) hi[r] = broadcast_u32(starts + kTileRows + r);
      } else {
        const __m512i sums = broadcast_u32(act_row(x, x_stride, r).h);
        (kSplit ? offset[r] : lo[r]) = _mm512_dpwssd_epi32(lo[r], s.offset, sums);
      }
    }
  });
  half_sums<T, kRows>(levels, x, x_stride, lo, hi);
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    constexpr int r = decltype(row)::value;
    if constexpr (kSplit) {
      lo[r] = _mm512_add_epi32(_mm512_mullo_epi32(lo[r], s.mul_lo),
                               _mm512_mullo_epi32(hi[r], s.mul_hi));
      if (kStarts<T> != 0 && !given) lo[r] = _mm512_add_epi32(lo[r], offset[r]);
    }
    t[r] = f32_from_i32(lo[r]);
    if constexpr (T::kScale == ScaleKind::kOne) t[r] = _mm512_mul_ps(t[r], s.mul);
  });
}

/// One block of kRows rows: sums, scales, minima.
template <class T, int kRows>
[[gnu::always_inline]] inline void block_step(const __m512i* levels, const BlockScales& s,
                                              const std::byte* x, int64_t x_stride,
                                              const int32_t* starts, __m512* acc) {
  __m512 t[kRows];
  block_sums<T, kRows>(levels, s, x, x_stride, starts, t);
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    constexpr int r = decltype(row)::value;
    const ActBlock& b = act_row(x, x_stride, r);
    acc[r] = _mm512_fmadd_ps(t[r], _mm512_mul_ps(s.d, broadcast_f32(&b.d)), acc[r]);
    if constexpr (T::kMin == MinKind::kSplit) {
      const __m512i m = _mm512_dpwssd_epi32(_mm512_setzero_si512(), s.mins, broadcast_u32(b.h));
      acc[r] =
          _mm512_fmadd_ps(f32_from_i32(m), _mm512_mul_ps(s.neg_min, broadcast_f32(&b.d)), acc[r]);
    } else if constexpr (T::kMin == MinKind::kOne) {
      acc[r] = _mm512_fmadd_ps(s.neg_min, broadcast_f32(&b.s), acc[r]);
    }
  });
}

/// kRows activation rows against one panel. out: element (row 0, first output of the panel);
/// n_valid 1..16 outputs exist. starts: of the tile (fill_starts) if it is a whole one and the type
/// has any.
template <class T, int kRows>
void fast_tile(const uint8_t* unit, int64_t n_unit, const std::byte* x, int64_t x_stride,
               const int32_t* starts, float* out, int64_t out_stride, int64_t n_valid) {
  constexpr int kGroup = static_cast<int>(min_of(kRows, 4));
  constexpr bool kGiven = kStarts<T> != 0 && kRows == kTileRows;
  static_assert(kRows % kGroup == 0);
  __m512 acc[kRows];
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    acc[decltype(row)::value] = _mm512_setzero_ps();
  });
  for (int64_t u = 0; u < n_unit; ++u, unit += T::kUnitBytes) {
    for (int sub = 0; sub < T::kSubs; ++sub, x += sizeof(ActBlock)) {
      const BlockScales s = T::scales(unit, sub);
      __m512i levels[8];
      T::levels(T::sub_block(unit, sub), levels);
      unrolled<kRows / kGroup>([&](auto group) __attribute__((always_inline)) {
        constexpr int r = decltype(group)::value * kGroup;
        block_step<T, kGroup>(levels, s, x + r * x_stride, x_stride, kGiven ? starts + r : nullptr,
                              acc + r);
      });
      if constexpr (kGiven) starts += kStarts<T> * kTileRows;
    }
  }
  unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
    store_lanes(out + decltype(row)::value * out_stride, acc[decltype(row)::value], n_valid);
  });
}

/// LinearKernel::run of one activation row: linear_gemv.h.
template <class T>
void gemv(const LinearArgs& a);

template <class T>
struct FastKernel {
  static int64_t packed_bytes(int64_t n, int64_t k) {
    return (n + kPanelRows - 1) / kPanelRows * panel::bytes_of_panel<T>(k);
  }
  /// Activation rows that stay in the second-level cache while all panels pass by.
  static int64_t rows_in_cache(const LinearArgs& a) {
    const int64_t row_bytes = a.k / 32 * static_cast<int64_t>(sizeof(ActBlock));
    const int64_t rows = min_of(a.l2_bytes / 2 / row_bytes, kMaxRows);
    return max_of(rows / kTileRows * kTileRows, kTileRows);
  }
  static int64_t scratch_bytes(int64_t k) {
    return kMaxRows * (k / 32) * kStarts<T> * static_cast<int64_t>(sizeof(int32_t));
  }
  static void pack(const std::byte* file, int64_t n, int64_t k, int64_t n_begin, int64_t n_end,
                   std::byte* packed) {
    panel::pack_rows<T, kPanelRows>(file, n, k, n_begin, n_end, packed);
  }

  /// Rows *r.. of the block that begins at r0, as long as there are kRows up to r_end.
  template <int kRows>
  [[gnu::always_inline]] static void tiles(const LinearArgs& a, int64_t j, int64_t r0,
                                           int64_t r_end, int64_t* r) {
    const uint8_t* unit =
        reinterpret_cast<const uint8_t*>(a.w) + j / kPanelRows * panel::bytes_of_panel<T>(a.k);
    const int32_t* starts = reinterpret_cast<const int32_t*>(a.scratch);
    for (; *r + kRows <= r_end; *r += kRows) {
      fast_tile<T, kRows>(unit, a.k / (32 * T::kSubs), a.act + *r * a.act_stride, a.act_stride,
                          starts + (*r - r0) * (a.k / 32) * kStarts<T>,
                          a.out + *r * a.out_stride + (j - a.n_begin), a.out_stride,
                          min_of(kPanelRows, a.n_end - j));
    }
  }

  static void run(const LinearArgs& a) {
    if (a.m == 1) return gemv<T>(a);
    const int64_t block = rows_in_cache(a);
    for (int64_t r0 = 0; r0 < a.m; r0 += block) {
      const int64_t r_end = min_of(r0 + block, a.m);
      if constexpr (kStarts<T> != 0) {
        for (int64_t r = r0; r + kTileRows <= r_end; r += kTileRows) {
          fill_starts<T>(
              a.act + r * a.act_stride, a.act_stride, a.k / 32,
              reinterpret_cast<int32_t*>(a.scratch) + (r - r0) * (a.k / 32) * kStarts<T>);
        }
      }
      for (int64_t j = a.n_begin; j < a.n_end; j += kPanelRows) {
        int64_t r = r0;
        tiles<kTileRows>(a, j, r0, r_end, &r);
        tiles<8>(a, j, r0, r_end, &r);
        tiles<4>(a, j, r0, r_end, &r);
        tiles<2>(a, j, r0, r_end, &r);
        tiles<1>(a, j, r0, r_end, &r);
      }
    }
  }

  /// prepare and act_bytes stay those of the level before.
  static void install(CpuKernels& table, DType type) {
    LinearKernel& t = table.linear[static_cast<int>(ActMode::kFast)][static_cast<int>(type)];
    t.n_align = kPanelRows;
    t.file_layout = false;
    t.packed_bytes = packed_bytes;
    t.pack = pack;
    t.scratch_bytes = scratch_bytes;
    t.run = run;
  }
};

}  // namespace infer::kern::avx512
