#pragma once

// Many activation rows times float weights. Order: linear_float.h.
//
// A stretch of V::kMaxVecs vectors of weight rows is widened to f32 and transposed into a panel, so
// that vectors run along the outputs, and then meets all rows of activations. The order asks for
// one chain per lane of k. They are taken one after the other: chain l of all outputs of a tile
// meets k = l, l + L, l + 2 L, ... with the activations broadcast, then the tree adds whole
// vectors. Trees across the lanes of every output would cost a sixth of the products.
//
// The panel, in the order in which chains take it, is one ascending stream from the L2 cache; the
// activations of a tile stay in the L1 cache, and those of the next one are fetched meanwhile.
#include "kernels/cpu/linear_float_gemv.h"

namespace infer::kern {

inline constexpr int64_t kMaxBlockRows = 256;  ///< activation rows that share a panel

template <class V>
constexpr int64_t panel_bytes() {
  return kMaxStretch * V::kMaxVecs * V::kLanes * static_cast<int64_t>(sizeof(float));
}

/// Most rows of a tile: more than twelve are too much for the L1 cache, and one is fetched a chain.
template <class V>
constexpr int tile_rows(int vecs) {
  return static_cast<int>(min_of(V::kMaxAcc / vecs, min_of(V::kLanes, 12)));
}

/// Weight rows u.j.. as panel [leaf of the tree][step][n_vec][kLanes], zeros behind the last k.
template <class V, class W>
void transpose_panel(const LinearArgs& a, const Unit& u, int64_t n_vec, float* panel) {
  constexpr int kLanes = V::kLanes;
  const int64_t n_step = (u.len + kLanes - 1) / kLanes;
  for (int64_t v = 0; v < n_vec; ++v) {
    FileRows<V, W, kLanes> rows;
    for (int l = 0; l < kLanes; ++l) rows.w[l] = row_of<W>(a, u, v * kLanes + l);
    for (int64_t s = 0; s < n_step; ++s) {
      typename V::Reg t[kLanes];
      const int64_t i = s * kLanes;
      if (i + kLanes <= u.len) {
        unrolled<kLanes>([&](auto l) { t[l.value] = rows.template load<l.value>(i); });
      } else {
        unrolled<kLanes>(
            [&](auto l) { t[l.value] = rows.template load_tail<l.value>(i, u.len - i); });
      }
      V::transpose(t);
      float* to = panel + (s * n_vec + v) * kLanes;
      unrolled<kLanes>([&](auto leaf) {
        V::store(to + leaf.value * n_step * n_vec * kLanes, t[V::lane_of_leaf(leaf.value)]);
      });
    }
  }
}

/// Rows of activations that meet a panel.
struct PanelTile {
  const float* panel = nullptr;
  const float* x = nullptr;     ///< zeros from k to the end of a step
  const float* next = nullptr;  ///< x of the tile that comes next
  int64_t x_stride = 0;         ///< floats
  int64_t n_step = 0;
  float* out = nullptr;
  int64_t out_stride = 0;  ///< floats
  int64_t n = 0;           ///< outputs that are there, may be fewer than the panel has
  bool first = false;      ///< out is written, not added to
};

/// Sums of a tile over the k of one lane.
template <class V, int kRows, int kVecs>
using TileSums = float[kRows * kVecs][V::kLanes];

/// Makes the compiler keep p as it is: GCC would make one base and offsets of several, and spill
/// those.
[[gnu::always_inline]] inline void settle(const float*& p) { __asm__("" : "+r"(p)); }

/// One chain of every output of a tile. w: its part of the panel; x: from its lane on.
template <class V, int kRows, int kVecs>
[[gnu::always_inline]] inline void chain(const float* w, const float* x, int64_t x_stride,
                                         const float* next, int64_t n_step,
                                         TileSums<V, kRows, kVecs>& to) {
  using Reg = typename V::Reg;
  constexpr int kLanes = V::kLanes;
  constexpr int kBases = (kRows + 2) / 3;  // three rows can be reached from one address
  Reg acc[kRows][kVecs];
  unrolled<kRows * kVecs>([&](auto i) __attribute__((always_inline)) {
    acc[i.value / kVecs][i.value % kVecs] = V::zero();
  });
  const float* base[kBases];
  unrolled<kBases>([&](auto b) __attribute__((always_inline)) {
    base[b.value] = x + 3 * b.value * x_stride;
  });
  const auto step = [&](auto s) __attribute__((always_inline)) {
    if constexpr (s.value * kLanes % 16 == 0) __builtin_prefetch(next + s.value * kLanes, 0, 3);
    Reg wv[kVecs];
    unrolled<kVecs>([&](auto v) __attribute__((always_inline)) {
      wv[v.value] = V::load(w + (s.value * kVecs + v.value) * kLanes);
    });
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Reg xv = V::broadcast(base[r.value / 3] + r.value % 3 * x_stride + s.value * kLanes);
      unrolled<kVecs>([&](auto v) __attribute__((always_inline)) {
        acc[r.value][v.value] = V::fma(wv[v.value], xv, acc[r.value][v.value]);
      });
    });
  };
  const auto advance = [&](int n) __attribute__((always_inline)) {
    w += n * kVecs * kLanes, next += n * kLanes;
    unrolled<kBases>([&](auto b) __attribute__((always_inline)) {
      base[b.value] += n * kLanes;
      settle(base[b.value]);
    });
  };
  for (; n_step >= 4; n_step -= 4, advance(4)) unrolled<4>(step);  // few turns can be predicted
  for (; n_step > 0; --n_step, advance(1)) step(Index<0>{});
  unrolled<kRows * kVecs>([&](auto i) __attribute__((always_inline)) {
    V::store(to[i.value], acc[i.value / kVecs][i.value % kVecs]);
  });
}

template <class V, int kRows, int kVecs>
void panel_tile(const PanelTile& t) {
  using Reg = typename V::Reg;
  constexpr int kFours = V::kLanes / 4;
  alignas(64) TileSums<V, kRows, kVecs> leaves[4], fours[kFours];
  const float* w = t.panel;
  for (int four = 0; four < kFours; ++four) {
    for (int i = 0; i < 4; ++i) {
      const int leaf = 4 * four + i;
      chain<V, kRows, kVecs>(w, t.x + V::lane_of_leaf(leaf), t.x_stride,
                             t.next + leaf % kRows * t.x_stride, t.n_step, leaves[i]);
      w += t.n_step * kVecs * V::kLanes;
    }
    unrolled<kRows * kVecs>([&](auto i) __attribute__((always_inline)) {
      const Reg left = V::add(V::load(leaves[0][i.value]), V::load(leaves[1][i.value]));
      const Reg right = V::add(V::load(leaves[2][i.value]), V::load(leaves[3][i.value]));
      V::store(fours[four][i.value], V::add(left, right));
    });
  }
  for (int i = 0; i < kRows * kVecs; ++i) {
    Reg sum = V::add(V::load(fours[0][i]), V::load(fours[1][i]));
    if constexpr (kFours == 4)
      sum = V::add(sum, V::add(V::load(fours[2][i]), V::load(fours[3][i])));
    const int r = i / kVecs, v = i % kVecs;
    V::put_lanes(sum, t.n - v * V::kLanes, t.first, t.out + r * t.out_stride + v * V::kLanes);
  }
}

/// m activation rows against a panel of kVecs vectors, in tiles as even as can be.
template <class V, int kVecs>
void rows_times_panel(PanelTile t, int64_t m, Ahead ahead) {
  constexpr int kTileRows = tile_rows<V>(kVecs);
  const float* const first = t.x;
  const int64_t n_tile = (m + kTileRows - 1) / kTileRows;
  const int64_t lines = (ahead.n_line() + n_tile - 1) / n_tile;
  for (int64_t i = 0; i < n_tile; ++i) {
    const int64_t rows = m / n_tile + (i < m % n_tile ? 1 : 0);
    ahead.fetch(lines);
    t.next = i + 1 < n_tile ? t.x + rows * t.x_stride : first;
    with_count<kTileRows>(rows, [&](auto n) { panel_tile<V, n.value, kVecs>(t); });
    t.x += rows * t.x_stride, t.out += rows * t.out_stride;
  }
}

/// Activation rows [r, r + m), stretches [k_begin, k_end), all weight rows.
template <class V, class W>
void times_panels(const LinearArgs& a, int64_t r, int64_t m, int64_t k_begin, int64_t k_end) {
  const int64_t stretch = stretch_of(a.k);
  PanelTile t;
  float* panel = reinterpret_cast<float*>(a.scratch);
  t.panel = panel;
  t.x_stride = a.act_stride / static_cast<int64_t>(sizeof(float)), t.out_stride = a.out_stride;
  const int64_t all_vecs = (a.n_end - a.n_begin + V::kLanes - 1) / V::kLanes;
  const int64_t n_panel = (all_vecs + V::kMaxVecs - 1) / V::kMaxVecs;
  for (int64_t i = 0; i < n_panel; ++i) {
    const int64_t vec = i * all_vecs / n_panel, n_vec = (i + 1) * all_vecs / n_panel - vec;
    const int64_t n_next = (i + 2) * all_vecs / n_panel - vec - n_vec;
    Unit u{a.n_begin + vec * V::kLanes};
    t.n = min_of(n_vec * V::kLanes, a.n_end - u.j);
    for (u.k0 = k_begin; u.k0 < k_end; u.k0 += stretch) {
      u.len = min_of(stretch, k_end - u.k0);
      transpose_panel<V, W>(a, u, n_vec, panel);
      const bool last = u.k0 + stretch >= k_end;
      const Unit next{last ? u.j + t.n : u.j, last ? k_begin : u.k0 + stretch};
      const Ahead ahead = Ahead::of<W>(a, next, (last ? n_next : n_vec) * V::kLanes, k_end);
      t.x = x_of(a, r, u.k0), t.out = out_of(a, r, u.j);
      t.n_step = (u.len + V::kLanes - 1) / V::kLanes;
      t.first = u.k0 == 0;
      with_count<V::kMaxVecs>(n_vec, [&](auto n) { rows_times_panel<V, n.value>(t, m, ahead); });
    }
  }
}

template <class V, class W>
void run_float(const LinearArgs& a) {
  if (a.m <= V::kFewRows) {
    if (a.m > 0) times_units<V, W>(a, 0, a.m, 0, a.k);
    return;
  }
  // Rows and stretches whose activations stay in the L2 cache while all weight rows pass.
  const int64_t stretch = stretch_of(a.k), stretch_bytes = stretch * 4;
  const int64_t block_bytes = a.l2_bytes / 3;  // the rest is for weights and outputs
  const int64_t most = min_of(kMaxBlockRows, max_of(kUnit, block_bytes / stretch_bytes));
  in_even_parts(a.m, most, [&](int64_t r, int64_t r_end) {
    const int64_t m = r_end - r;
    const int64_t group = max_of(1, block_bytes / (m * stretch_bytes)) * stretch;
    for (int64_t k0 = 0; k0 < a.k; k0 += group) {
      const int64_t k_end = min_of(k0 + group, a.k);
      if (m < V::kManyRows) {
        times_units<V, W>(a, r, m, k0, k_end);
      } else {
        times_panels<V, W>(a, r, m, k0, k_end);
      }
    }
  });
}

}  // namespace infer::kern
