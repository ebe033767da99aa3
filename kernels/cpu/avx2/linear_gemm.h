#pragma once

// Several activation rows times panels of eight outputs. Order and bounds: linear_fast.h.
//
// A stretch of two panels is unpacked once for all rows of a block of rows: levels to bytes, scales
// to f32 and i16. Then up to four rows at a time pass over it. The inner step is a broadcast load
// of four activations for both panels, and a vpmaddubsw and a vpaddw for 32 products of each;
// vpmaddwd widens a sum once or twice a block. Levels that stand for q - c need no correction: a
// sum starts at -c times the sum of the activations that its lane meets. Additions wrap, so only
// the last value has to fit.
//
// Signed 8-bit levels leave no room for sums in 16 bits. They and the activations are widened for
// vpmaddwd and vpaddd, which is fewer instructions than taking their signs apart.
//
// Eight sums, two vectors of levels and an activation are in registers, the f32 sums in memory.
#include <type_traits>

#include "kernels/cpu/avx2/linear_precise.h"
#include "kernels/cpu/avx2/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx2 {

inline constexpr int kGroupRows = 4;           ///< most activation rows in the inner loop
inline constexpr int kGroupPanels = 2;         ///< most panels there
inline constexpr int64_t kStretchBlocks = 18;  ///< most blocks of 32 k unpacked at a time

/// 32 activations in 16 bits: pair i holds k = 4i, 4i + 2 and pair 8 + i k = 4i + 1, 4i + 3.
struct WideActBlock {
  int16_t q[32];
  float d;
};

/// 32 k of a panel, unpacked.
struct alignas(32) NarrowBlock {
  uint8_t levels[8][32];  ///< quads
  float d[8], neg_min[8];
  int16_t mul[2][16];  ///< twice in each 32-bit lane
  int16_t mins[16];
};
struct alignas(32) WideBlock {
  int16_t levels[16][16];  ///< pairs as in WideActBlock
  float d[8];
};

enum class MinKind : uint8_t { kNone, kOne, kSplit };  ///< one, or one for each half of 32

/// Types with a minimum for each half of 32 elements: mins() gives them as i16 pairs a lane, and
/// scales().neg_min is their common factor, negated.
template <class T>
concept SplitMin = requires(const uint8_t* unit) {
  T::mins(unit, 0);
};

/// What the inner loop depends on: types that agree share its code.
template <bool kWideLevels, int kSumCount, bool kCentred, MinKind kMinKind>
struct GemmForm {
  static constexpr bool kWide = kWideLevels;  ///< signed 8-bit levels
  static constexpr int kSums = kSumCount;     ///< 16-bit sums a block, each with its multiplier
  static constexpr bool kStarts = kCentred;   ///< levels stand for q - c
  static constexpr MinKind kMin = kMinKind;
  using Act = std::conditional_t<kWide, WideActBlock, ActBlock>;

  using Block = std::conditional_t<kWide, WideBlock, NarrowBlock>;
};

template <class T>
constexpr auto gemm_form() {
  constexpr MinKind kMin = SplitMin<T>  ? MinKind::kSplit
                           : T::kHasMin ? MinKind::kOne
                                        : MinKind::kNone;
  if constexpr (T::kBits == 8) {
    static_assert(kMin == MinKind::kNone);
    return GemmForm<true, 0, false, kMin>{};
  } else {
    // Sums of unsigned levels of 5 bits fit over one half only.
    constexpr int kSums = T::kSplitScale || (T::kBits > 4 && T::kOffset == 0) ? 2 : 1;
    return GemmForm<false, kSums, T::kOffset != 0, kMin>{};
  }
}

[[gnu::always_inline]] inline __m256i load_i(const void* p) {
  return _mm256_load_si256(static_cast<const __m256i*>(p));
}
[[gnu::always_inline]] inline void store_i(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

/// The signed bytes of v in 16 bits: of every four 0 and 2, then 1 and 3.
[[gnu::always_inline]] inline void store_wide(__m256i v, void* even, void* odd) {
  store_i(even, _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
  store_i(odd, _mm256_srai_epi16(v, 8));
}

template <class T, class F>
[[gnu::always_inline]] inline void unpack_block(const uint8_t* unit, int sub,
                                                typename F::Block* b) {
  const auto s = T::scales(unit, sub);
  _mm256_store_ps(b->d, s.d);
  if constexpr (F::kMin != MinKind::kNone) _mm256_store_ps(b->neg_min, s.neg_min);
  if constexpr (F::kMin == MinKind::kSplit) store_i(b->mins, T::mins(unit, sub));
  if constexpr (F::kWide) {
    unrolled<8>([&](auto quad) __attribute__((always_inline)) {
      constexpr int i = decltype(quad)::value;
      store_wide(T::quad(unit, sub, i), b->levels[i], b->levels[8 + i]);
    });
  } else {
    store_i(b->mul[0], s.mul_lo);
    if constexpr (F::kSums == 2) store_i(b->mul[1], s.mul_hi);
    unrolled<4>([&](auto vec) __attribute__((always_inline)) {
      constexpr int i = decltype(vec)::value;
      __m256i lo, hi;
      T::template levels<i>(unit, sub, lo, hi);
      store_i(b->levels[i], lo);
      store_i(b->levels[i + 4], hi);
    });
  }
}

template <class Act>
[[gnu::always_inline]] inline const Act& act_at(const Act* x, int64_t stride, int64_t r) {
  return *reinterpret_cast<const Act*>(reinterpret_cast<const std::byte*>(x) + r * stride);
}

/// A block's integer sums of kRows activation rows and kPanels panels, whose blocks lie
/// kStretchBlocks apart.
template <int kPanels, int kRows>
using Sums = __m256i[kPanels][kRows];

/// starts [kSums][kGroupRows].
template <class F, int kPanels, int kRows>
[[gnu::always_inline]] inline void narrow_sums(const NarrowBlock* w, const ActBlock* x,
                                               int64_t x_stride, const int32_t* starts,
                                               Sums<kPanels, kRows>& t) {
  constexpr int kQuads = 8 / F::kSums;  // that a sum takes
  unrolled<F::kSums>([&](auto part) __attribute__((always_inline)) {
    constexpr int kPart = decltype(part)::value;
    Sums<kPanels, kRows> sum;
    unrolled<kQuads>([&](auto step) __attribute__((always_inline)) {
      constexpr int i = kPart * kQuads + decltype(step)::value;
      constexpr bool kFirst = decltype(step)::value == 0;
      __m256i levels[kPanels];
      unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
        levels[panel.value] = load_i(w[panel.value * kStretchBlocks].levels[i]);
      });
      unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
        constexpr int r = decltype(row)::value;
        const __m256i q = broadcast_u32(act_at(x, x_stride, r).q + 4 * i);
        __m256i start = _mm256_setzero_si256();
        if constexpr (kFirst && F::kStarts) start = broadcast_u32(starts + kPart * kGroupRows + r);
        unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
          constexpr int p = decltype(panel)::value;
          const __m256i product = _mm256_maddubs_epi16(levels[p], q);
          if constexpr (!kFirst) {
            sum[p][r] = _mm256_add_epi16(sum[p][r], product);
          } else if constexpr (F::kStarts) {
            sum[p][r] = _mm256_add_epi16(start, product);
          } else {
            sum[p][r] = product;
          }
          settle(sum[p][r]);
        });
      });
    });
    unrolled<kPanels * kRows>([&](auto at) __attribute__((always_inline)) {
      constexpr int p = decltype(at)::value / kRows, r = decltype(at)::value % kRows;
      const __m256i mul = load_i(w[p * kStretchBlocks].mul[kPart]);
      const __m256i wide = _mm256_madd_epi16(sum[p][r], mul);
      t[p][r] = kPart == 0 ? wide : _mm256_add_epi32(t[p][r], wide);
    });
  });
}

template <int kPanels, int kRows>
[[gnu::always_inline]] inline void wide_sums(const WideBlock* w, const WideActBlock* x,
                                             int64_t x_stride, Sums<kPanels, kRows>& t) {
  unrolled<16>([&](auto step) __attribute__((always_inline)) {
    constexpr int i = decltype(step)::value;
    __m256i levels[kPanels];
    unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
      levels[panel.value] = load_i(w[panel.value * kStretchBlocks].levels[i]);
    });
    unrolled<kRows>([&](auto row) __attribute__((always_inline)) {
      constexpr int r = decltype(row)::value;
      const __m256i q = broadcast_u32(act_at(x, x_stride, r).q + 2 * i);
      unrolled<kPanels>([&](auto panel) __attribute__((always_inline)) {
        constexpr int p = decltype(panel)::value;
        const __m256i product = _mm256_madd_epi16(levels[p], q);
        t[p][r] = i == 0 ? product : _mm256_add_epi32(t[p][r], product);
        settle(t[p][r]);
      });
    });
  });
}

/// kRows activation rows over a stretch of kPanels panels. acc [kRows][kPanels][8].
template <class F, int kPanels, int kRows>
void group_times_stretch(const typename F::Block* w, int64_t n_block, const typename F::Act* x,
                         int64_t x_stride, const int32_t* starts, float* acc) {
  for (const typename F::Block* end = w + n_block; w != end; ++w, ++x) {
    Sums<kPanels, kRows> t;
    if constexpr (F::kWide) {
      wide_sums<kPanels, kRows>(w, x, x_stride, t);
    } else {
      narrow_sums<F, kPanels, kRows>(w, x, x_stride, starts, t);
      if constexpr (F::kStarts) starts += F::kSums * kGroupRows;
    }
    unrolled<kPanels * kRows>([&](auto at) __attribute__((always_inline)) {
      constexpr int r = decltype(at)::value / kPanels, p = decltype(at)::value % kPanels;
      const typename F::Block& wp = w[p * kStretchBlocks];
      const typename F::Act& xr = act_at(x, x_stride, r);
      const __m256 d_x = _mm256_broadcast_ss(&xr.d);
      float* to = acc + decltype(at)::value * kPanelRows;
      const __m256 scale = _mm256_mul_ps(_mm256_load_ps(wp.d), d_x);
      __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[p][r]), scale, _mm256_load_ps(to));
      if constexpr (F::kMin == MinKind::kSplit) {
        const __m256i m = _mm256_madd_epi16(load_i(wp.mins), broadcast_u32(xr.h));
        const __m256 factor = _mm256_mul_ps(_mm256_load_ps(wp.neg_min), d_x);
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(m), factor, sum);
      } else if constexpr (F::kMin == MinKind::kOne) {
        sum = _mm256_fmadd_ps(_mm256_load_ps(wp.neg_min), _mm256_broadcast_ss(&xr.s), sum);
      }
      _mm256_store_ps(to, sum);
    });
  }
}

/// The 16-bit lane sums of a block's activations times -c: of all quads, or of quads 0..3,
/// then 4..7.
template <class F>
[[gnu::always_inline]] inline void fill_starts(const ActBlock& x, int centre, int32_t* starts) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_u8x32(x.q));
  __m128i lo = _mm256_castsi256_si128(pairs), hi = _mm256_extracti128_si256(pairs, 1);
  const __m128i factor = _mm_set1_epi16(static_cast<int16_t>(-centre));
  if constexpr (F::kSums == 1) {
    lo = _mm_add_epi16(lo, hi);
  } else {
    hi = _mm_add_epi16(hi, _mm_shuffle_epi32(hi, 0x4e));
    hi = _mm_add_epi16(hi, _mm_shuffle_epi32(hi, 0xb1));
    starts[kGroupRows] = _mm_cvtsi128_si32(_mm_mullo_epi16(hi, factor));
  }
  lo = _mm_add_epi16(lo, _mm_shuffle_epi32(lo, 0x4e));
  lo = _mm_add_epi16(lo, _mm_shuffle_epi32(lo, 0xb1));
  starts[0] = _mm_cvtsi128_si32(_mm_mullo_epi16(lo, factor));
}

template <class F>
using GroupFn = void (*)(const typename F::Block*, int64_t, const typename F::Act*, int64_t,
                         const int32_t*, float*);
template <class F, int kPanels>
inline constexpr GroupFn<F> kGroupFns[kGroupRows + 1] = {
    nullptr, group_times_stretch<F, kPanels, 1>, group_times_stretch<F, kPanels, 2>,
    group_times_stretch<F, kPanels, 3>, group_times_stretch<F, kPanels, 4>};

/// Rows times panels of type T. Rows are cut into blocks that stay in the second-level cache while
/// all panels pass by, and those into groups, evenly, so that no row costs more than another.
template <class T>
class Gemm {
 public:
  static int64_t scratch_bytes(int64_t k) {
    return kBlocksBytes + kAccBytes + k / 32 * kMaxRows * kActBytes;
  }

  static void run(const LinearArgs& a) {
    const int64_t row_bytes = a.k / 32 * static_cast<int64_t>(sizeof(Act));
    const int64_t most = max_of(min_of(a.l2_bytes / 2 / row_bytes, kMaxRows), kGroupRows);
    in_even_parts(a.m, most, [&](int64_t begin, int64_t end) {
      const Gemm rows(a, begin, end);
      int64_t j = a.n_begin;
      for (; j + kPanelRows < a.n_end; j += kGroupPanels * kPanelRows) {
        rows.template times_panels<kGroupPanels>(j);
      }
      if (j < a.n_end) rows.template times_panels<1>(j);
    });
  }

 private:
  using Form = decltype(gemm_form<T>());
  using Block = typename Form::Block;
  using Act = typename Form::Act;
  static constexpr int64_t kMaxRows = 64;
  static constexpr int64_t kBlocksBytes = kGroupPanels * kStretchBlocks * sizeof(Block);
  static constexpr int64_t kAccBytes = kMaxRows * kGroupPanels * kPanelRows * sizeof(float);
  static constexpr int64_t kStartsOfBlock = Form::kStarts ? Form::kSums * kGroupRows : 0;
  /// Of a row and 32 k, besides what the caller prepared.
  static constexpr int64_t kActBytes =
      Form::kWide ? sizeof(WideActBlock) : kStartsOfBlock / kGroupRows * sizeof(int32_t);

  Gemm(const LinearArgs& a, int64_t row_begin, int64_t row_end)
      : a_(a), row_begin_(row_begin), m_(row_end - row_begin), n_block_(a.k / 32) {
    n_group_ = (m_ + kGroupRows - 1) / kGroupRows;
    for (int64_t g = 0; g <= n_group_; ++g) group_begin_[g] = g * m_ / n_group_;
    constexpr int64_t kStretchUnits = kStretchBlocks / T::kSubs;
    n_unit_ = n_block_ / T::kSubs;
    n_stretch_ = (n_unit_ + kStretchUnits - 1) / kStretchUnits;
    lines_of_group_ =
        ((n_unit_ + n_stretch_ - 1) / n_stretch_ * T::kUnitBytes / 64 + n_group_) / n_group_;
    blocks_ = reinterpret_cast<Block*>(a.scratch);
    acc_ = reinterpret_cast<float*>(a.scratch + kBlocksBytes);
    const std::byte* x = a.act + row_begin * a.act_stride;
    std::byte* prepared = a.scratch + kBlocksBytes + kAccBytes;
    if constexpr (Form::kWide) {
      x_stride_ = n_block_ * static_cast<int64_t>(sizeof(Act));
      x_ = reinterpret_cast<const Act*>(prepared);
      widen_rows(reinterpret_cast<const ActBlock*>(x), reinterpret_cast<Act*>(prepared));
    } else {
      x_stride_ = a.act_stride;
      x_ = reinterpret_cast<const Act*>(x);
      starts_ = reinterpret_cast<int32_t*>(prepared);
      if constexpr (Form::kStarts) find_starts();
    }
  }

  void widen_rows(const ActBlock* from, Act* to) const {
    for (int64_t r = 0; r < m_; ++r, to += n_block_) {
      const ActBlock* row = &act_at(from, a_.act_stride, r);
      for (int64_t i = 0; i < n_block_; ++i) {
        store_wide(load_u8x32(row[i].q), to[i].q, to[i].q + 16);
        to[i].d = row[i].d;
      }
    }
  }

  void find_starts() const {
    for (int64_t g = 0; g < n_group_; ++g) {
      for (int64_t r = group_begin_[g]; r < group_begin_[g + 1]; ++r) {
        const ActBlock* row = &act_at(x_, x_stride_, r);
        int32_t* to = starts_ + g * n_block_ * kStartsOfBlock + (r - group_begin_[g]);
        for (int64_t i = 0; i < n_block_; ++i, to += kStartsOfBlock) {
          fill_starts<Form>(row[i], T::kOffset, to);
        }
      }
    }
  }

  /// Outputs [j, j + kPanels * kPanelRows), as far as there are.
  template <int kPanels>
  void times_panels(int64_t j) const {
    constexpr int64_t kOutputs = kPanels * kPanelRows;
    const int64_t panel_bytes = panel::bytes_of_panel<T>(a_.k);
    const uint8_t* first = reinterpret_cast<const uint8_t*>(a_.w) + j / kPanelRows * panel_bytes;
    __builtin_memset(acc_, 0, static_cast<size_t>(m_ * kOutputs) * sizeof(float));
    for (int64_t s = 0; s < n_stretch_; ++s) {
      const int64_t begin = s * n_unit_ / n_stretch_ * T::kSubs;
      const int64_t end = (s + 1) * n_unit_ / n_stretch_ * T::kSubs;
      const uint8_t* units = first + begin / T::kSubs * T::kUnitBytes;
      for (int p = 0; p < kPanels; ++p) {
        unpack(units + p * panel_bytes, end - begin, blocks_ + p * kStretchBlocks);
      }
      const uint8_t* next = s + 1 < n_stretch_ ? first + end / T::kSubs * T::kUnitBytes
                                               : first + kPanels * panel_bytes;
      for (int64_t g = 0; g < n_group_; ++g) {
        // Each group fetches its share of the next stretch: unpacking has no work to hide waits.
        for (int64_t i = 0; i < lines_of_group_; ++i, next += 64) {
          for (int p = 0; p < kPanels; ++p) _mm_prefetch(next + p * panel_bytes, _MM_HINT_T0);
        }
        const int64_t r = group_begin_[g];
        kGroupFns<Form, kPanels>[group_begin_[g + 1] - r](
            blocks_, end - begin, &act_at(x_, x_stride_, r) + begin, x_stride_,
            starts_ + (g * n_block_ + begin) * kStartsOfBlock, acc_ + r * kOutputs);
      }
    }
    float* out = a_.out + row_begin_ * a_.out_stride + (j - a_.n_begin);
    for (int64_t r = 0; r < m_; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        store_lanes(out + r * a_.out_stride + p * kPanelRows,
                    _mm256_load_ps(acc_ + r * kOutputs + p * kPanelRows),
                    a_.n_end - j - p * kPanelRows);
      }
    }
  }

  static void unpack(const uint8_t* unit, int64_t n_block, Block* to) {
    for (int64_t i = 0; i < n_block; ++i) {
      unpack_block<T, Form>(unit + i / T::kSubs * T::kUnitBytes, static_cast<int>(i % T::kSubs),
                            to + i);
    }
  }

  const LinearArgs& a_;
  int64_t row_begin_, m_, n_block_;
  int64_t n_unit_, n_stretch_;  ///< of a panel; each stretch has whole units
  int64_t n_group_, group_begin_[kMaxRows / kGroupRows + 1];
  int64_t lines_of_group_;
  Block* blocks_;
  float* acc_;  ///< [row][panel][8]
  const Act* x_;
  int64_t x_stride_;
  int32_t* starts_ = nullptr;  ///< [group][block][kSums][kGroupRows]
};

}  // namespace infer::kern::avx2
