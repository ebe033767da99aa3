#pragma once

// Several activation rows times panels of sixteen outputs. Order: linear_fast.h.
//
// As in avx2/linear_gemm.h a stretch of panels, here two side by side, is unpacked once for all
// rows of a block of rows: levels to bytes, scales to f32. Then groups of rows pass over it. For 32
// products of sixteen outputs the inner step is half a broadcast load of four activations, which
// both panels share, and a vpdpbusd. Integer sums and f32 sums of a group stay in registers.
//
// Integers become f32 without a conversion where a scale follows: a sum starts at the bits of
// kMagic = 1.5 * 2^23, so that the bits of its end are those of kMagic + t, |t| < 2^22, and
//   fma(kMagic + t, scale, -kMagic * scale) = t * scale
// is exact, since kMagic * scale (integer scales of 8 bits) and the result (below 2^24) are.
#include "kernels/cpu/avx512/linear_block.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx512 {

inline constexpr int kGemmPanels = 2;
inline constexpr int64_t kStretchBlocks = 16;  ///< most blocks of 32 k unpacked at a time
inline constexpr float kMagic = 0x1.8p23f;
inline constexpr int32_t kMagicBits = 0x4b400000;

/// What the inner loop depends on: types that agree share its code.
template <bool kCentred, ScaleKind kScaleKind, MinKind kMinKind>
struct GemmForm {
  static constexpr ScaleKind kScale = kScaleKind;
  static constexpr MinKind kMin = kMinKind;
  static constexpr int kSums = kScale == ScaleKind::kSplit ? 2 : 1;  ///< of a block
  static constexpr int kStarts = kCentred ? kSums : 0;               ///< levels stand for q - c
  /// Where a block's first sum starts, activations apart.
  static constexpr int32_t kFirstStart = kScale == ScaleKind::kNone ? 0 : kMagicBits;
  /// Most activation rows in the inner loop. Of 32 registers a row takes one for each panel and
  /// f32 sum, integer sum and, between the halves of a block, scaled sum (a few are spilt).
  static constexpr int kGroupRows = kSums == 2 ? 5 : 6;

  /// 32 k of a panel, unpacked.
  struct alignas(64) Block {
    uint8_t levels[8][64];
    float d[16], neg_min[16];
    float mul[2][16], neg_magic[16];  ///< -kMagic * mul[0]
    int16_t mins[32];
  };
};
template <class T>
using GemmFormOf = GemmForm<T::kOffset != 0, T::kScale, T::kMin>;

template <class F, class T>
[[gnu::always_inline]] inline void unpack_block(const uint8_t* unit, int sub,
                                                typename F::Block* b) {
  const BlockScales s = T::scales(unit, sub);
  _mm512_store_ps(b->d, s.d);
  if constexpr (F::kMin != MinKind::kNone) _mm512_store_ps(b->neg_min, s.neg_min);
  if constexpr (F::kMin == MinKind::kSplit) _mm512_store_si512(b->mins, s.mins);
  if constexpr (F::kScale != ScaleKind::kNone) {
    const __m512 mul = F::kSums == 2 ? f32_from_i32(s.mul_lo) : s.mul;
    _mm512_store_ps(b->mul[0], mul);
    _mm512_store_ps(b->neg_magic, _mm512_mul_ps(mul, _mm512_set1_ps(-kMagic)));
    if constexpr (F::kSums == 2) _mm512_store_ps(b->mul[1], f32_from_i32(s.mul_hi));
  }
  __m512i levels[8];
  T::levels(T::sub_block(unit, sub), levels);
  unrolled<8>([&](auto quad) __attribute__((always_inline)) {
    _mm512_store_si512(b->levels[quad.value], levels[quad.value]);
  });
}

[[gnu::always_inline]] inline const ActBlock& act_row(const std::byte* x, int64_t stride,
                                                      int64_t r) {
  return *reinterpret_cast<const ActBlock*>(x + r * stride);
}

/// A group of rows over a stretch.
template <class F>
struct GemmGroup {
  const typename F::Block* w;  ///< [block][panel]
  int64_t n_block;
  const std::byte* x;     ///< ActBlock, of row 0
  int64_t x_stride;       ///< bytes
  const int32_t* starts;  ///< [block][kStarts][kGroupRows]
  float* acc;             ///< [row][panel][16], read and written
  /// Weights that are wanted soon, of each panel: this many lines a block.
  const uint8_t* ahead;
  int64_t ahead_lines, ahead_stride;
};

/// t[r][p] = f32 of the integer sum of a block, times the block's integer scales, exact.
template <class F, int kPanels, int kRows>
[[gnu::always_inline]] inline void scaled_sums(const typename F::Block* w, const std::byte* x,
                                               int64_t x_stride, const int32_t* starts,
                                               __m512 (&t)[kRows][kPanels]) {
  constexpr int kQuads = 8 / F::kSums;  // that a sum takes
  unrolled<F::kSums>([&](auto part) __attribute__((always_inline)) {
    constexpr int kPart = part.value;
    constexpr int32_t kStart = kPart == 0 ? F::kFirstStart : 0;
    __m512i sum[kRows][kPanels];
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
        if constexpr (F::kStarts != 0) {
          sum[r.value][p.value] = broadcast_u32(starts + kPart * F::kGroupRows + r.value);
        } else {
          sum[r.value][p.value] = _mm512_set1_epi32(kStart);
        }
      });
    });
    unrolled<kQuads>([&](auto step) __attribute__((always_inline)) {
      constexpr int i = kPart * kQuads + step.value;
      __m512i levels[kPanels];
      unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
        levels[p.value] = _mm512_load_si512(w[p.value].levels[i]);
      });
      unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
        const __m512i q = broadcast_u32(act_row(x, x_stride, r.value).q + 4 * i);
        unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
          __m512i& s = sum[r.value][p.value];
          s = _mm512_dpbusd_epi32(s, levels[p.value], q);
          settle(s);
        });
      });
    });
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
        const typename F::Block& b = w[p.value];
        const __m512i s = sum[r.value][p.value];
        __m512& out = t[r.value][p.value];
        if constexpr (kStart != 0) {
          out = _mm512_fmadd_ps(_mm512_castsi512_ps(s), _mm512_load_ps(b.mul[0]),
                                _mm512_load_ps(b.neg_magic));
        } else if constexpr (kPart == 1) {
          out = _mm512_fmadd_ps(f32_from_i32(s), _mm512_load_ps(b.mul[1]), out);
        } else {
          out = f32_from_i32(s);
        }
      });
    });
  });
}

template <class F, int kPanels, int kRows>
void group_times_stretch(const GemmGroup<F>& g) {
  const typename F::Block* w = g.w;
  const std::byte* x = g.x;
  const int32_t* starts = g.starts;
  const uint8_t* ahead = g.ahead;
  const int64_t x_stride = g.x_stride, ahead_lines = g.ahead_lines, ahead_stride = g.ahead_stride;
  __m512 acc[kRows][kPanels];
  unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    acc[i.value / kPanels][i.value % kPanels] = _mm512_load_ps(g.acc + i.value * kPanelRows);
  });
  for (const typename F::Block* end = w + g.n_block * kPanels; w != end; w += kPanels) {
    for (int64_t line = 0; line < ahead_lines; ++line, ahead += 64) {
      for (int p = 0; p < kPanels; ++p) _mm_prefetch(ahead + p * ahead_stride, _MM_HINT_T0);
    }
    __m512 t[kRows][kPanels];
    scaled_sums<F, kPanels, kRows>(w, x, x_stride, starts, t);
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const ActBlock& xr = act_row(x, x_stride, r.value);
      const __m512 d_x = broadcast_f32(&xr.d);
      unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
        const typename F::Block& b = w[p.value];
        __m512& sum = acc[r.value][p.value];
        sum = _mm512_fmadd_ps(t[r.value][p.value], _mm512_mul_ps(_mm512_load_ps(b.d), d_x), sum);
        if constexpr (F::kMin == MinKind::kSplit) {
          const __m512i m = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_load_si512(b.mins),
                                                broadcast_u32(xr.h));
          sum =
              _mm512_fmadd_ps(f32_from_i32(m), _mm512_mul_ps(_mm512_load_ps(b.neg_min), d_x), sum);
        } else if constexpr (F::kMin == MinKind::kOne) {
          sum = _mm512_fmadd_ps(_mm512_load_ps(b.neg_min), broadcast_f32(&xr.s), sum);
        }
      });
    });
    x += sizeof(ActBlock);
    starts += F::kStarts * F::kGroupRows;
  }
  unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    _mm512_store_ps(g.acc + i.value * kPanelRows, acc[i.value / kPanels][i.value % kPanels]);
  });
}

/// group_times_stretch of n_row rows.
template <class F, int kPanels, int kRows = F::kGroupRows>
[[gnu::always_inline]] inline void times_stretch(int64_t n_row, const GemmGroup<F>& g) {
  if constexpr (kRows > 1) {
    if (n_row < kRows) return times_stretch<F, kPanels, kRows - 1>(n_row, g);
  }
  group_times_stretch<F, kPanels, kRows>(g);
}

/// Rows times panels of type T. Rows are cut into blocks that stay in the second-level cache while
/// all panels pass by, and those into groups, evenly, so that no row costs more than another.
template <class T>
class Gemm {
 public:
  static int64_t scratch_bytes(int64_t k) {
    return kBlocksBytes + kAccBytes +
           (k / 32) * kMaxGroups * kStartsOfBlock * static_cast<int64_t>(sizeof(int32_t));
  }

  static void run(const LinearArgs& a) {
    const int64_t row_bytes = a.k / 32 * static_cast<int64_t>(sizeof(ActBlock));
    const int64_t most = max_of(min_of(a.l2_bytes / 2 / row_bytes, kMaxRows), Form::kGroupRows);
    in_even_parts(a.m, most, [&](int64_t begin, int64_t end) {
      const Gemm rows(a, begin, end);
      int64_t j = a.n_begin;
      for (; j + kPanelRows < a.n_end; j += kGemmPanels * kPanelRows) {
        rows.template times_panels<kGemmPanels>(j);
      }
      if (j < a.n_end) rows.template times_panels<1>(j);
    });
  }

 private:
  using Form = GemmFormOf<T>;
  using Block = typename Form::Block;
  static constexpr int64_t kMaxRows = 64;
  static constexpr int64_t kMaxGroups = (kMaxRows + Form::kGroupRows - 1) / Form::kGroupRows;
  static constexpr int64_t kBlocksBytes = kGemmPanels * kStretchBlocks * sizeof(Block);
  static constexpr int64_t kAccBytes = kMaxRows * kGemmPanels * kPanelRows * sizeof(float);
  static constexpr int64_t kStartsOfBlock = Form::kStarts * Form::kGroupRows;

  Gemm(const LinearArgs& a, int64_t row_begin, int64_t row_end)
      : a_(a), row_begin_(row_begin), m_(row_end - row_begin), n_block_(a.k / 32) {
    n_group_ = (m_ + Form::kGroupRows - 1) / Form::kGroupRows;
    for (int64_t g = 0; g <= n_group_; ++g) group_begin_[g] = g * m_ / n_group_;
    constexpr int64_t kStretchUnits = kStretchBlocks / T::kSubs;
    n_unit_ = n_block_ / T::kSubs;
    n_stretch_ = (n_unit_ + kStretchUnits - 1) / kStretchUnits;
    blocks_ = reinterpret_cast<Block*>(a.scratch);
    acc_ = reinterpret_cast<float*>(a.scratch + kBlocksBytes);
    starts_ = reinterpret_cast<int32_t*>(a.scratch + kBlocksBytes + kAccBytes);
    x_ = a.act + row_begin * a.act_stride;
    if constexpr (Form::kStarts != 0) find_starts();
  }

  /// A sum starts at -c times the sum of the activations that it takes.
  void find_starts() const {
    for (int64_t g = 0; g < n_group_; ++g) {
      for (int64_t r = group_begin_[g]; r < group_begin_[g + 1]; ++r) {
        const ActBlock* x = &act_row(x_ + r * a_.act_stride, 0, 0);
        int32_t* to = starts_ + g * n_block_ * kStartsOfBlock + (r - group_begin_[g]);
        for (int64_t i = 0; i < n_block_; ++i, to += kStartsOfBlock) {
          const int lo = T::kOffset * x[i].h[0], hi = T::kOffset * x[i].h[1];
          if constexpr (Form::kStarts == 2) {
            to[0] = Form::kFirstStart - lo;
            to[Form::kGroupRows] = -hi;
          } else {
            to[0] = Form::kFirstStart - (lo + hi);
          }
        }
      }
    }
  }

  template <int kPanels>
  void times_panels(int64_t j) const {
    const int64_t panel_bytes = panel::bytes_of_panel<T>(a_.k);
    const uint8_t* panel = reinterpret_cast<const uint8_t*>(a_.w) + j / kPanelRows * panel_bytes;
    __builtin_memset(acc_, 0, static_cast<size_t>(m_ * kPanels * kPanelRows) * sizeof(float));
    for (int64_t s = 0; s < n_stretch_; ++s) {
      const int64_t begin = s * n_unit_ / n_stretch_ * T::kSubs;
      const int64_t n = (s + 1) * n_unit_ / n_stretch_ * T::kSubs - begin;
      const uint8_t* unit = panel + begin / T::kSubs * T::kUnitBytes;
      for (int64_t i = 0; i < n; ++i) {
        for (int p = 0; p < kPanels; ++p) {
          unpack_block<Form, T>(unit + p * panel_bytes + i / T::kSubs * T::kUnitBytes,
                                static_cast<int>(i % T::kSubs), blocks_ + i * kPanels + p);
        }
      }
      // Each block of each group fetches its share of the next stretch, which lies behind this one
      // or behind the last panel.
      const int64_t lines = n / T::kSubs * T::kUnitBytes / 64 + 1, steps = n_group_ * n;
      GemmGroup<Form> group;
      group.w = blocks_, group.n_block = n, group.x_stride = a_.act_stride;
      group.ahead_lines = (lines + steps - 1) / steps, group.ahead_stride = panel_bytes;
      group.ahead = unit + n / T::kSubs * T::kUnitBytes;
      if (s + 1 == n_stretch_) group.ahead += (kPanels - 1) * panel_bytes;
      for (int64_t g = 0; g < n_group_; ++g) {
        const int64_t r = group_begin_[g];
        group.x = x_ + r * a_.act_stride + begin * static_cast<int64_t>(sizeof(ActBlock));
        group.starts = starts_ + (g * n_block_ + begin) * kStartsOfBlock;
        group.acc = acc_ + r * kPanels * kPanelRows;
        times_stretch<Form, kPanels>(group_begin_[g + 1] - r, group);
        group.ahead += n * group.ahead_lines * 64;
      }
    }
    float* out = a_.out + row_begin_ * a_.out_stride + (j - a_.n_begin);
    for (int64_t r = 0; r < m_; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        store_lanes(out + r * a_.out_stride + p * kPanelRows,
                    _mm512_load_ps(acc_ + (r * kPanels + p) * kPanelRows),
                    min_of(kPanelRows, a_.n_end - j - p * kPanelRows));
      }
    }
  }

  const LinearArgs& a_;
  int64_t row_begin_, m_, n_block_;
  int64_t n_unit_, n_stretch_;  ///< of a panel; each stretch has whole units
  int64_t n_group_, group_begin_[kMaxGroups + 1];
  Block* blocks_;
  float* acc_;  ///< [row][panel][16]
  const std::byte* x_;
  int32_t* starts_;  ///< [group][block][kStarts][kGroupRows]
};

}  // namespace infer::kern::avx512
