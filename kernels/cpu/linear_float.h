#pragma once

// F32, F16 and BF16 weights in the file's layout times f32 activations, for any vector of eight or
// sixteen lanes: what linear_float_gemv.h (few rows) and linear_float_gemm.h (many rows) agree on.
// A level instantiates run_float (linear_float_gemm.h) with its own V, which lies in an anonymous
// namespace, so that nothing here becomes a symbol:
//   Reg, kLanes; zero, load, store, broadcast, add, fma; load(W{}, p): kLanes weights as f32;
//   kMaxAcc: accumulators that leave registers for the operands; kFewRows, kManyRows: rows up to
//   which panels do not pay, and from which on transposed ones do; kMaxVecs: vectors of those;
//   reduce4: the trees of four vectors; lane_of_leaf: the tree's leaves from left to right; put,
//   put_lanes: store or add sums; transpose: kLanes vectors.
//
// Reduction order of a level, the same for every m, n range and thread. k is cut into equal
// stretches of at most kMaxStretch elements (a multiple of sixteen; the last may be shorter). In a
// stretch the lanes run along k, one chain per output,
//   acc[l] = fma(w[L i + l], x[L i + l], acc[l])  for i = 0, 1, 2, ...  starting from +0, a last
//   partial step with zeros;
// then a tree over the lanes. The sums of the stretches are added one after the other.
#include "kernels/cpu/inline.h"
#include "kernels/cpu/table.h"

namespace infer::kern {

inline constexpr int64_t kMaxStretch = 576;

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

/// Weight rows from j on, elements [k0, k0 + len) of each.
struct Unit {
  int64_t j = 0, k0 = 0, len = 0;
};

template <class W>
[[gnu::always_inline]] inline const std::byte* row_of(const LinearArgs& a, const Unit& u,
                                                      int64_t row) {
  return a.w + (min_of(u.j + row, a.n_end - 1) * a.k + u.k0) * W::kBytes;
}

[[gnu::always_inline]] inline const float* x_of(const LinearArgs& a, int64_t row, int64_t k0) {
  return reinterpret_cast<const float*>(a.act + row * a.act_stride) + k0;
}
[[gnu::always_inline]] inline float* out_of(const LinearArgs& a, int64_t row, int64_t j) {
  return a.out + row * a.out_stride + (j - a.n_begin);
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

/// Weights that come next, fetched a few lines at a time: rows are too short, and lie too far
/// apart, for the hardware to see them come.
struct Ahead {
  const std::byte* row = nullptr;
  int64_t row_bytes = 0;      ///< from row to row
  int64_t bytes = 0, at = 0;  ///< of a row: wanted, fetched
  int64_t n_row = 0;

  /// Up to n_row rows of the unit that begins at `next`, of which k ends at k_end.
  template <class W>
  [[gnu::always_inline]] static Ahead of(const LinearArgs& a, const Unit& next, int64_t n_row,
                                         int64_t k_end) {
    return {a.w + (next.j * a.k + next.k0) * W::kBytes, a.k * W::kBytes,
            min_of(stretch_of(a.k), k_end - next.k0) * W::kBytes, 0,
            max_of(0, min_of(n_row, a.n_end - next.j))};
  }
  [[gnu::always_inline]] int64_t n_line() const { return n_row * (bytes / 64 + 1); }
  [[gnu::always_inline]] void fetch(int64_t n) {
    for (; n > 0 && n_row > 0; --n) {
      __builtin_prefetch(row + at, 0, 2);
      at += 64;
      if (at >= bytes) at = 0, row += row_bytes, --n_row;
    }
  }
};

}  // namespace infer::kern
