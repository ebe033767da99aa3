#pragma once

#include <cstddef>
#include <cstdint>

/// The loops of each ISA level behind roofline.h. No container here: ISA files include this.
namespace infer::kern {

/// Operands of a loop, repeated with a period of 16 elements: f32 loops take the f32 pairs, 8-bit
/// loops a u8 and an i8 each. Small integers keep every sum exact.
struct RooflineArgs {
  float f32_a[16] = {}, f32_b[16] = {};
  uint8_t u8_a[16] = {};  ///< at most 15 where the recipe adds in 16 bits, as 4-bit weights are
  int8_t i8_b[16] = {};
  int64_t n_iter = 0;
};

/// One recipe. run() multiplies and adds operands that stay in registers and gives the exact total,
///   ops_per_iter / 2 * n_iter * mean(a[i] * b[i]),
/// so that a test can see that the work was done. Long runs wrap (8-bit) or round (f32), which
/// changes nothing about the speed.
struct RooflineLoop {
  enum class Kind : uint8_t { kF32, kInt8, kInt4 /* only with u8 of at most 15 */ };
  const char* name = "";    ///< "f32_fma", "int8_maddubs", ...
  const char* recipe = "";  ///< the instructions, for people
  Kind kind = Kind::kF32;
  int64_t ops_per_iter = 0;  ///< a multiply and an add count as two
  double (*run)(const RooflineArgs& args) = nullptr;
};

/// fn(Index<0>), ..., fn(Index<kCount - 1>): counters that are constants from the start, so that an
/// array of vectors indexed by them lives in registers.
template <int kIndex>
struct RooflineIndex {
  static constexpr int value = kIndex;
};
template <int kCount, class Fn>
[[gnu::always_inline]] inline void roofline_each(const Fn& fn) {
  if constexpr (kCount > 0) {
    roofline_each<kCount - 1>(fn);
    fn(RooflineIndex<kCount - 1>{});
  }
}

// roofline_read: the sum modulo 2^64 of the 64-bit words of data [n_bytes]; data 64-byte aligned,
// n_bytes % 1024 == 0.
namespace generic {
uint64_t roofline_read(const std::byte* data, int64_t n_bytes);
extern const RooflineLoop kRooflineLoops[2];
}  // namespace generic

namespace avx2 {
uint64_t roofline_read(const std::byte* data, int64_t n_bytes);
extern const RooflineLoop kRooflineLoops[3];
}  // namespace avx2

namespace avxvnni {  // the one recipe that AVX2 lacks
extern const RooflineLoop kRooflineLoops[1];
}  // namespace avxvnni

namespace avx512 {
uint64_t roofline_read(const std::byte* data, int64_t n_bytes);
extern const RooflineLoop kRooflineLoops[4];
}  // namespace avx512

}  // namespace infer::kern
