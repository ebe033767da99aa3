#pragma once

#include <cstdint>

/// What the kernels of several ISA levels share. Force-inlined: nothing here becomes a symbol.
namespace infer::kern {

/// fn(Index<0>), ..., fn(Index<kCount - 1>): a loop whose counter is a constant from the start, so
/// that arrays of vectors indexed by it live in registers.
template <int kIndex>
struct Index {
  static constexpr int value = kIndex;
};
template <int kCount, class Fn>
[[gnu::always_inline]] inline void unrolled(const Fn& fn) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(fn);
    fn(Index<kCount - 1>{});
  }
}

[[gnu::always_inline]] constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
[[gnu::always_inline]] constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/// fn(begin, end) of even parts of [0, n), as few as there can be with at most `most` each.
template <class Fn>
[[gnu::always_inline]] inline void in_even_parts(int64_t n, int64_t most, const Fn& fn) {
  const int64_t n_part = (n + most - 1) / most;
  for (int64_t i = 0; i < n_part; ++i) fn(i * n / n_part, (i + 1) * n / n_part);
}

[[gnu::always_inline]] inline uint32_t load_u32(const void* p) {
  uint32_t v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
[[gnu::always_inline]] inline void store_u32(void* p, uint32_t v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

}  // namespace infer::kern
