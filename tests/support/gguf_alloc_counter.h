#pragma once

#include <cstdint>

namespace infer::test {

/// Counts what operator new hands out in this program; link gguf_alloc_counter.cpp into the test to
/// replace it.
struct AllocCounter {
  static void reset();          ///< forgets the peak; what is allocated now is the zero level
  static int64_t peak_bytes();  ///< most bytes alive at once since reset(), above its level
  static int64_t n_allocs();    ///< calls since reset()
};

}  // namespace infer::test
