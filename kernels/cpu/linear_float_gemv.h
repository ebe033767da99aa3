#pragma once

// Activation rows times float weights with the lanes along k, as the order says (linear_float.h).
// Work goes by units: kUnit weight rows over a stretch. Up to V::kFewRows activation rows meet the
// weights as they lie, each widened once. More rows pay for a panel: the unit is widened to f32
// into scratch, which stays in the L1 cache while all rows pass.
#include "kernels/cpu/linear_float.h"

namespace infer::kern {

inline constexpr int64_t kUnit = 8;

/// Weight rows of a panel [stretch / kLanes][kUnit][kLanes], filled with zeros to whole steps.
template <class V>
struct PanelRows {
  const float* panel;

  template <int kOutput>
  [[gnu::always_inline]] typename V::Reg load(int64_t i) const {
    return V::load(panel + i * kUnit + kOutput * V::kLanes);
  }
  template <int kOutput>
  [[gnu::always_inline]] typename V::Reg load_tail(int64_t i, int64_t /*count*/) const {
    return load<kOutput>(i);
  }
};

/// Rows of activations that meet weight rows over a stretch.
struct Tile {
  const float* x = nullptr;  ///< zeros from k to the end of a step
  int64_t x_stride = 0;      ///< floats
  int64_t len = 0;           ///< elements of k
  float* out = nullptr;
  int64_t out_stride = 0;  ///< floats
  int64_t n = 0;           ///< outputs that are there, may be more than the tile has
  bool first = false;      ///< out is written, not added to
  /// Weights that are wanted soon, kAhead bytes a step. Rows are too short, and lie too far apart,
  /// for the hardware to see them come.
  const std::byte* ahead = nullptr;
};

/// The trees of a tile, four at a time, whatever row they belong to.
template <class V, int kRows, int kOutputs>
[[gnu::always_inline]] inline void put_sums(const Tile& t,
                                            const typename V::Reg (&acc)[kRows][kOutputs]) {
  constexpr int kSums = kRows * kOutputs;
  unrolled<(kSums + 3) / 4>([&](auto group) __attribute__((always_inline)) {
    constexpr int kFirst = group.value * 4;
    const auto at = [&](auto i) __attribute__((always_inline)) {
      constexpr int kAt = kFirst + i.value;
      if constexpr (kAt < kSums) return acc[kAt / kOutputs][kAt % kOutputs];
      return V::zero();
    };
    const auto sums = V::reduce4(at(Index<0>{}), at(Index<1>{}), at(Index<2>{}), at(Index<3>{}));
    if constexpr (kOutputs == 4) {
      V::put(sums, t.n, t.first, t.out + group.value * t.out_stride);
    } else {
      unrolled<min_of(4, kSums - kFirst)>([&](auto i) __attribute__((always_inline)) {
        constexpr int kRow = (kFirst + i.value) / kOutputs;
        constexpr int kOutput = (kFirst + i.value) % kOutputs;
        if (kOutput >= t.n) return;
        float* out = t.out + kRow * t.out_stride + kOutput;
        *out = t.first ? sums[i.value] : *out + sums[i.value];
      });
    }
  });
}

template <class V, int kRows, int kOutputs, int kAhead, class Rows>
[[gnu::always_inline]] inline void tile(const Tile& t, const Rows& w) {
  using Reg = typename V::Reg;
  Reg acc[kRows][kOutputs];
  unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
    unrolled<kOutputs>([&](auto o)
                           __attribute__((always_inline)) { acc[r.value][o.value] = V::zero(); });
  });
  const auto step = [&](const Reg* wv, const float* x) __attribute__((always_inline)) {
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Reg xv = V::load(x + r.value * t.x_stride);
      unrolled<kOutputs>([&](auto o) __attribute__((always_inline)) {
        acc[r.value][o.value] = V::fma(wv[o.value], xv, acc[r.value][o.value]);
      });
    });
  };
  Reg wv[kOutputs];
  int64_t i = 0;
  for (; i + V::kLanes <= t.len; i += V::kLanes) {
    for (int64_t b = 0; b < kAhead; b += 64)
      __builtin_prefetch(t.ahead + i / V::kLanes * kAhead + b, 0, 2);
    unrolled<kOutputs>([&](auto o) __attribute__((always_inline)) {
      wv[o.value] = w.template load<o.value>(i);
    });
    step(wv, t.x + i);
  }
  if (i < t.len) {
    unrolled<kOutputs>([&](auto o) __attribute__((always_inline)) {
      wv[o.value] = w.template load_tail<o.value>(i, t.len - i);
    });
    step(wv, t.x + i);
  }
  put_sums<V, kRows, kOutputs>(t, acc);
}

template <class V, class W, int kRows>
void few_rows(const LinearArgs& a, const Unit& u, Tile t, const std::byte* ahead) {
  constexpr int kOutputs = kRows * 4 <= V::kMaxAcc ? 4 : kRows * 2 <= V::kMaxAcc ? 2 : 1;
  constexpr int kAhead = kOutputs * V::kLanes * W::kBytes;
  for (int64_t o = 0; o < kUnit && t.n > 0; o += kOutputs, t.n -= kOutputs, t.out += kOutputs) {
    FileRows<V, W, kOutputs> rows;
    for (int i = 0; i < kOutputs; ++i) rows.w[i] = row_of<W>(a, u, o + i);
    t.ahead = ahead + o * u.len * W::kBytes;
    tile<V, kRows, kOutputs, kAhead>(t, rows);
  }
}

template <class V, class W>
void widen(const LinearArgs& a, const Unit& u, float* panel) {
  FileRows<V, W, kUnit> rows;
  for (int o = 0; o < kUnit; ++o) rows.w[o] = row_of<W>(a, u, o);
  int64_t i = 0;
  for (; i + V::kLanes <= u.len; i += V::kLanes) {
    unrolled<kUnit>([&](auto o) {
      V::store(panel + i * kUnit + o.value * V::kLanes, rows.template load<o.value>(i));
    });
  }
  if (i == u.len) return;
  unrolled<kUnit>([&](auto o) {
    V::store(panel + i * kUnit + o.value * V::kLanes,
             rows.template load_tail<o.value>(i, u.len - i));
  });
}

template <class V, int kRows>
void panel_rows(Tile t, const float* panel) {
  tile<V, kRows, 4, 0>(t, PanelRows<V>{panel});
  t.n -= 4, t.out += 4;
  if (t.n > 0) tile<V, kRows, 4, 0>(t, PanelRows<V>{panel + 4 * V::kLanes});
}

/// m activation rows against a unit's panel, in tiles as even as can be.
template <class V>
void rows_times_unit(Tile t, int64_t m, const float* panel, Ahead ahead) {
  constexpr int kTileRows = V::kMaxAcc / 4;
  const int64_t n_tile = (m + kTileRows - 1) / kTileRows;
  const int64_t lines = (ahead.n_line() + n_tile - 1) / n_tile;
  for (int64_t i = 0; i < n_tile; ++i) {
    const int64_t rows = m / n_tile + (i < m % n_tile ? 1 : 0);
    ahead.fetch(lines);
    with_count<kTileRows>(rows, [&](auto n) { panel_rows<V, n.value>(t, panel); });
    t.x += rows * t.x_stride, t.out += rows * t.out_stride;
  }
}

/// Units of activation rows [r, r + m), over stretches [k_begin, k_end) of all weight rows.
template <class V, class W>
void times_units(const LinearArgs& a, int64_t r, int64_t m, int64_t k_begin, int64_t k_end) {
  const int64_t stretch = stretch_of(a.k);
  Tile t;
  t.x_stride = a.act_stride / static_cast<int64_t>(sizeof(float)), t.out_stride = a.out_stride;
  for (Unit u{a.n_begin}; u.j < a.n_end; u.j += kUnit) {
    for (u.k0 = k_begin; u.k0 < k_end; u.k0 += stretch) {
      u.len = min_of(stretch, k_end - u.k0);
      t.x = x_of(a, r, u.k0), t.out = out_of(a, r, u.j);
      t.len = u.len, t.n = a.n_end - u.j, t.first = u.k0 == 0;
      if (a.m <= V::kFewRows) {  // all of k: what comes next lies as in the file
        const int64_t next_j = u.j + 2 * kUnit <= a.n_end ? u.j + kUnit : u.j;
        const std::byte* ahead = a.w + (next_j * a.k + u.k0 * kUnit) * W::kBytes;
        with_count<V::kFewRows>(m, [&](auto n) { few_rows<V, W, n.value>(a, u, t, ahead); });
        continue;
      }
      float* panel = reinterpret_cast<float*>(a.scratch);
      widen<V, W>(a, u, panel);
      const bool last = u.k0 + stretch >= k_end;
      const Unit next{last ? u.j + kUnit : u.j, last ? k_begin : u.k0 + stretch};
      rows_times_unit<V>(t, m, panel, Ahead::of<W>(a, next, kUnit, k_end));
    }
  }
}

}  // namespace infer::kern
