#pragma once

// F32, F16 and BF16 weights in the file's layout times f32 activations, for any vector of eight or
// sixteen lanes. A level instantiates run_float with its own V:
//   Reg, kLanes; kMaxAcc: accumulators that leave registers for the operands; kFewRows: rows from
//   which on a panel pays; zero, load, store, fma; load(W{}, p): kLanes weights as f32; reduce4:
//   the trees of four vectors; put: stores or adds the first of four sums.
// V lies in an anonymous namespace, so that nothing here becomes a symbol.
//
// Reduction order of a level, the same for every m, n range and thread. k is cut into equal
// stretches of at most kMaxStretch elements (a multiple of sixteen; the last may be shorter). In a
// stretch the lanes run along k, one chain per output,
//   acc[l] = fma(w[L i + l], x[L i + l], acc[l])  for i = 0, 1, 2, ...  starting from +0, a last
//   partial step with zeros;
// then a tree (reduce4). The sums of the stretches are added one after the other.
//
// Work goes by units: kUnit weight rows over a stretch. Up to V::kFewRows activation rows meet the
// weights as they lie, each widened once. More rows pay for a panel: the unit is widened to f32
// into scratch, which stays in the L1 cache while all rows pass.
#include "kernels/cpu/inline.h"
#include "kernels/cpu/table.h"

namespace infer::kern {

inline constexpr int64_t kMaxStretch = 576;
inline constexpr int64_t kUnit = 8;
inline constexpr int64_t kPanelBytes = kUnit * kMaxStretch * 4;
inline constexpr int64_t kMaxBlockRows = 256;  ///< activation rows that share a panel

struct F32 {
  static constexpr int64_t kBytes = 4;
};
struct F16 {
  static constexpr int64_t kBytes = 2;
};
struct BF16 {
  static constexpr int64_t kBytes = 2;
};

/// fn(Index<n>) for n in [1, kMax].
template <int kMax, class Fn>
[[gnu::always_inline]] inline void with_count(int64_t n, const Fn& fn) {
  if constexpr (kMax > 1) {
    if (n < kMax) return with_count<kMax - 1>(n, fn);
  }
  fn(Index<kMax>{});
}

[[gnu::always_inline]] inline int64_t stretch_of(int64_t k) {
  constexpr int64_t kStep = 16;
  const int64_t steps = (k + kStep - 1) / kStep;
  const int64_t count = (steps * kStep + kMaxStretch - 1) / kMaxStretch;
  return (steps + count - 1) / count * kStep;
}

/// Weight rows w[0 .. kOutputs) as they lie in the file.
template <class V, class W, int kOutputs>
struct FileRows {
  const std::byte* w[kOutputs];

  template <int kOutput>
  [[gnu::always_inline]] typename V::Reg load(int64_t i) const {
    return V::load(W{}, w[kOutput] + i * W::kBytes);
  }
  /// The first `count` (< kLanes) elements, zeros after them; reads no byte more.
  template <int kOutput>
  [[gnu::always_inline]] typename V::Reg load_tail(int64_t i, int64_t count) const {
    alignas(64) std::byte buffer[64] = {};
    __builtin_memcpy(buffer, w[kOutput] + i * W::kBytes, static_cast<size_t>(count * W::kBytes));
    return V::load(W{}, buffer);
  }
};

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

/// A unit of weights: rows [j, j + kUnit), as far as there are, from k0 on.
struct Unit {
  int64_t j = 0, k0 = 0, len = 0;
};

template <class W>
[[gnu::always_inline]] inline const std::byte* row_of(const LinearArgs& a, const Unit& u,
                                                      int64_t row) {
  return a.w + (min_of(u.j + row, a.n_end - 1) * a.k + u.k0) * W::kBytes;
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

/// Weights of a unit that comes next, fetched a few lines at a time.
struct Ahead {
  const std::byte* row = nullptr;
  int64_t row_bytes = 0;      ///< from row to row
  int64_t bytes = 0, at = 0;  ///< of a row: wanted, fetched
  int64_t n_row = 0;

  [[gnu::always_inline]] int64_t n_line() const { return n_row * (bytes / 64 + 1); }
  [[gnu::always_inline]] void fetch(int64_t n) {
    for (; n > 0 && n_row > 0; --n) {
      __builtin_prefetch(row + at, 0, 2);
      at += 64;
      if (at >= bytes) at = 0, row += row_bytes, --n_row;
    }
  }
};

/// m activation rows against a panel, in tiles as even as can be.
template <class V>
void all_rows(Tile t, int64_t m, const float* panel, Ahead ahead) {
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
void run_block(const LinearArgs& a, int64_t r, int64_t m, int64_t k_begin, int64_t k_end) {
  const int64_t stretch = stretch_of(a.k);
  Tile t;
  t.x_stride = a.act_stride / static_cast<int64_t>(sizeof(float)), t.out_stride = a.out_stride;
  for (Unit u{a.n_begin}; u.j < a.n_end; u.j += kUnit) {
    for (u.k0 = k_begin; u.k0 < k_end; u.k0 += stretch) {
      u.len = min_of(stretch, k_end - u.k0);
      t.x = reinterpret_cast<const float*>(a.act + r * a.act_stride) + u.k0;
      t.out = a.out + r * a.out_stride + (u.j - a.n_begin);
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
      Ahead ahead;
      ahead.row = a.w + (next.j * a.k + next.k0) * W::kBytes, ahead.row_bytes = a.k * W::kBytes;
      ahead.bytes = min_of(stretch, k_end - next.k0) * W::kBytes;
      ahead.n_row = max_of(0, min_of(kUnit, a.n_end - next.j));
      all_rows<V>(t, m, panel, ahead);
    }
  }
}

template <class V, class W>
void run_float(const LinearArgs& a) {
  if (a.m <= V::kFewRows) {
    if (a.m > 0) run_block<V, W>(a, 0, a.m, 0, a.k);
    return;
  }
  // Rows and stretches whose activations stay in the L2 cache while all weight rows pass.
  const int64_t stretch = stretch_of(a.k), stretch_bytes = stretch * 4;
  const int64_t block_bytes = a.l2_bytes / 4;  // the rest is for weights and outputs
  const int64_t block = min_of(kMaxBlockRows, max_of(kUnit, block_bytes / stretch_bytes));
  for (int64_t r = 0; r < a.m; r += block) {
    const int64_t m = min_of(block, a.m - r);
    const int64_t group = max_of(1, block_bytes / (m * stretch_bytes)) * stretch;
    for (int64_t k0 = 0; k0 < a.k; k0 += group)
      run_block<V, W>(a, r, m, k0, min_of(k0 + group, a.k));
  }
}

}  // namespace infer::kern
