#pragma once

// What 32 elements of a panel of sixteen outputs consist of, for the kernels of one row
// (linear_gemv.h) and of several (linear_gemm.h).
#include "kernels/cpu/avx512/linear_vec.h"
#include "kernels/cpu/generic/linear_act.h"

namespace infer::kern::avx512 {

inline constexpr int kPanelRows = 16;  ///< outputs in a panel: the lanes

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

}  // namespace infer::kern::avx512
